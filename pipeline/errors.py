"""What this package refuses, as one tree.

ValueError
└── PipelineError
    ├── WeightsError      a weights file that is not what it should be
    ├── ImageError        bytes that give no picture
    ├── PromptError       a text that gives no embedding or no direction
    ├── ShapeError        an array of another shape
    ├── PairError         rows from which no pairs can be drawn
    ├── CheckpointError   a training checkpoint that does not fit
    └── DivergedError     a training run whose numbers are no longer finite

A message names the value, the rule it breaks, the place, and what to do.
"""


class PipelineError(ValueError):
    """Anything this package refuses."""


class WeightsError(PipelineError):
    """A weights file of another architecture, damaged, unsafe to read, or with another digest."""


class ImageError(PipelineError):
    """Bytes that give no picture.

    Attributes:
        reason: one word for counting, such as ``truncated``.
        detail: a sentence for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        # Both go to `args`, so that the error survives the way back from a worker process.
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class PromptError(PipelineError):
    """A text longer than the model's context, or two texts that mean the same to it."""


class ShapeError(PipelineError):
    """An array whose shape is not the one a function works on."""


class PairError(PipelineError):
    """Too few rows, or rows so alike that no pairs can be drawn from them."""


class CheckpointError(PipelineError):
    """A checkpoint of another configuration, model or format."""


class DivergedError(PipelineError):
    """A loss or a weight that is NaN or infinite."""
