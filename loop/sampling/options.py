"""The options of sampling from others than the policy, and of tree search."""

from pydantic import Field

from sparring.loop.section import Section


class Source(Section, frozen=True):
    """Who answers the train prompts besides the policy."""

    # reference is that of the round, opponent the previous policy. SELM (arXiv:2405.19332) samples the reference
    # greedily, SPIN (arXiv:2401.01335) takes the dataset's answers, TSO (arXiv:2409.02118) uses a matrix of models.
    of: str = Field(description="reference, initial, opponent, dataset, or a model's folder or hub id")
    n: int = Field(1, ge=1, description="completions per prompt; a dataset has one")
    temperature: float | None = Field(None, ge=0, description="0: greedy, as in SELM; the policy's by default")
    field: str = Field("response", description="for a dataset: the field of a prompt's row that holds its answer")


class Search(Section, frozen=True):
    """The options of the search."""

    depth: int = Field(3, ge=1, description="steps; after the last one an answer runs to its end")
    # Those that continue the step already are among them.
    actions: int = Field(2, ge=2, description="answers sampled for each step that is expanded")
    iterations: int = Field(16, ge=1, description="expansions per prompt")
    exploration: float = Field(1.0, ge=0, description="weight of likely and little visited steps (PUCT)")
    # A last step, which has no children, gets as many at each visit.
    rollouts: int = Field(1, ge=1, description="full answers per new step")
