"""The Prefect flow `evaluate`: `flows.steps.evaluate` as a recorded run."""

from flows.observe import Observed, flow
from flows.parameters import strict
from flows.steps.evaluate import EvaluateConfig
from flows.steps.evaluate import evaluate as evaluate_step

strict(EvaluateConfig)


@flow(name="evaluate")
def evaluate(config: EvaluateConfig) -> dict[str, object]:
    """Measure a run's mapper on the held-out rows of its store."""
    with Observed("evaluate", config.run) as run:
        result = evaluate_step(config)
        run.values(result)
        run.link(config.out, "evaluation")
    return result
