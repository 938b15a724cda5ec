"""The records a loop makes, in the order a round makes them.

    Prompt -> Completion -> Judgement -> Pair -> Update -> Checkpoint -> Evaluation

Records are frozen and name their causes by id, so any row can be walked back to its prompt, and making a thing twice
gives one row. Standard library only: this package imports in milliseconds.
"""

from sparring.loop.types.ids import derive_seed, digest, make_id
from sparring.loop.types.records import (
    Checkpoint,
    Completion,
    Divergence,
    Evaluation,
    Example,
    JudgeCall,
    JudgeInfo,
    Judgement,
    JudgementStatus,
    LogProb,
    Message,
    Origin,
    Outcome,
    Pair,
    Prompt,
    PromptOutcome,
    PromptTokens,
    Split,
    Update,
    UpdatePair,
    UpdateStep,
)
from sparring.loop.types.runs import Decision, Facts, Head, Layout, QueryInfo, Removal, RunInfo, RunKind, RunModel, Stop
from sparring.loop.types.views import Answers, Experience, Group, Round

Asked = Prompt | Completion | Judgement | JudgeInfo | JudgeCall | PromptOutcome | PromptTokens
Learned = Pair | Example | LogProb | Divergence | Update | UpdateStep | UpdatePair | Checkpoint | Evaluation
Record = Asked | Learned | Decision | Stop | Removal | QueryInfo | Round | RunInfo | RunModel
