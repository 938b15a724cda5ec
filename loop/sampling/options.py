"""The options of sampling from others than the policy, and of tree search."""

from pydantic import Field

from sparring.loop.section import Section


class Source(Section, frozen=True):
    """Who answers the train prompts beside the policy."""

    # reference is that of the round, opponent the previous policy. SELM (arXiv:2405.19332) samples the reference
    # greedily, SPIN (arXiv:2401.01335) takes the dataset's answers, TSO (arXiv:2409.02118) uses a matrix of models.
    of: str = Field(description="reference, initial, opponent, dataset, or a model's folder or hub id")
    n: int = Field(1, ge=1, description="completions a prompt; a dataset has one")
    temperature: float | None = Field(None, ge=0, description="0: greedily, as SELM does; as the policy if not given")
    field: str = Field("response", description="of a dataset: the field of a prompt's row that has its answer")


class Search(Section, frozen=True):
    """The options of the search."""

    depth: int = Field(3, ge=1, description="steps; after the last one an answer is not cut any more")
    # Those that continue the step already are among them.
    actions: int = Field(2, ge=2, description="answers that are sampled where the search goes on")
    iterations: int = Field(16, ge=1, description="how often the search goes on from some step, a prompt")
    exploration: float = Field(1.0, ge=0, description="how much likely and little tried steps are preferred")
    # A last step, which has no children, gets as many at each visit.
    rollouts: int = Field(1, ge=1, description="full answers that a new step gets")
