"""The config: strict, in YAML, checked before anything heavy loads.

Options of a loss, judge or pair builder are the keyword arguments of its function, so they stand beside the named
fields and are checked against the signature by `flows.compose.build.prepare`.
"""

from sparring.flows.config.base import Named, WithOptions
from sparring.flows.config.config import Config, Evaluate, sha256, verdict_options
from sparring.flows.config.learn import Learn
from sparring.flows.config.parse import Parsed, override, parse_config, parse_model, put, read_config, read_yaml
from sparring.flows.config.run import Keep, Step, Steps, Stop
from sparring.flows.config.sample import JudgeConfig, PairConfig, Policy, Prompts, Sample, Tree
