"""Run directories from strangers: each attack makes one of a copy of a good run.

An attack takes the run's folder and a folder outside, which nothing may be written into.
"""

from attacks.headers import HEADERS
from attacks.links import LINKS, WRITES_ALONE
from attacks.values import VALUES

ATTACKS = {**LINKS, **HEADERS, **VALUES}
# What only a training would fall for; whoever reads such a run gets its text, or is refused.
HARMLESS_TO_READ = WRITES_ALONE
# What comes out when the network is about to be built.
OF_LAYERS = ("a small file for a huge network",)
