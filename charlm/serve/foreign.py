"""Fields of other servers' completions that are not offered here, each with what asks for nothing.

Of OpenAI, vLLM, SGLang, llama.cpp, text-generation-inference, text-generation-webui and Ollama: their clients send many
of them at every request. A value that would change the answer is refused by the field's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from charlm.serve.fields import Nothing


def _anything(value: Any, request: Mapping[str, Any]) -> bool:
    """It says who asks, how to keep or to schedule the request, or how to use what is off."""
    return True


def _only(*values: Any) -> Nothing:
    return lambda value, request: value in values


def _best_of(value: Any, request: Mapping[str, Any]) -> bool:
    return value in (1, request.get("n") or 1)


def _min_tokens(value: Any, request: Mapping[str, Any]) -> bool:
    """Nothing but a stop text ends a text before its length."""
    most, stop = request.get("max_tokens"), request.get("stop")
    return isinstance(value, int) and (value <= 0 or (isinstance(most, int) and value <= most and not stop))


def _do_sample(value: Any, request: Mapping[str, Any]) -> bool:
    return value is True or (value is False and request.get("temperature") == 0)


_NOTHING: dict[Nothing, str] = {
    _anything: "user metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention "
    "prompt_cache_options request_id rid priority cache_salt extra_key keep_alive session_id cache_prompt id_slot "
    "n_keep n_discard parallel_tool_calls tool_choice truncation_length "
    # of an end or of special symbols, which there are none of
    "ignore_eos ban_eos_token add_bos_token add_special_tokens skip_special_tokens spaces_between_special_tokens "
    # of a sampler whose switch is another field
    "repeat_last_n repetition_penalty_range penalize_nl dynatemp_exponent xtc_threshold mirostat_tau mirostat_eta "
    "dry_base dry_allowed_length dry_penalty_last_n dry_sequence_breakers smoothing_curve "
    "temperature_last min_keep guided_decoding_backend",
    _only(0): "frequency_penalty presence_penalty top_a dynatemp_range xtc_probability mirostat mirostat_mode "
    "dry_multiplier epsilon_cutoff eta_cutoff penalty_alpha no_repeat_ngram_size smoothing_factor n_probs n_indent "
    "t_max_predict_ms top_n_tokens prompt_logprobs min_length",
    _only(1): "repeat_penalty rep_pen encoder_repetition_penalty length_penalty typical_p typ_p "
    "typical tfs tfs_z guidance_scale num_beams",
    _only(-1, 0): "top_n_sigma truncate_prompt_tokens num_ctx",
    _only(False): "use_beam_search early_stopping include_stop_str_in_output no_stop_trim watermark details "
    "decoder_input_details return_full_text return_tokens return_token_ids return_tokens_as_token_ids "
    "return_hidden_states return_progress post_sampling_probs timings_per_token think raw dynamic_temperature",
    _only(True): "detokenize",
    _only("", []): "suffix grammar system template context images image_data negative_prompt custom_token_bans",
    _only(
        [], {}
    ): "logit_bias stop_token_ids bad_words stop_regex tools functions lora logits_processors prompt_embeds "
    "options vllm_xargs custom_params chat_template_kwargs",
    _only({"type": "text"}, "text", ""): "response_format format",
    _only(None): "json_schema guided_json guided_regex guided_choice guided_grammar structured_outputs regex ebnf "
    "truncate adapter_id lora_path session_params allowed_token_ids samplers kv_transfer_params",
    _best_of: "best_of",
    _min_tokens: "min_tokens min_new_tokens",
    _do_sample: "do_sample",
}
FOREIGN: dict[str, Nothing] = {name: nothing for nothing, names in _NOTHING.items() for name in names.split()}

INSTEAD = {  # what says it here
    **dict.fromkeys(("messages", "input", "inputs", "text", "prompts"), "prompt"),
    **dict.fromkeys(
        ("max_completion_tokens", "max_new_tokens", "max_length", "n_predict", "num_predict", "length"), "max_tokens"
    ),
    **dict.fromkeys(("num_return_sequences", "samples"), "n"),
    **dict.fromkeys(("random_seed", "sampling_seed"), "seed"),
    **dict.fromkeys(("stop_sequences", "stop_strings", "stopping_strings"), "stop"),
    **dict.fromkeys(("top_logprobs", "logprob"), "logprobs"),
}
