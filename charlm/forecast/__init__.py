"""Forecasts of number series: sampled continuations, what they come to, and how good they were."""
