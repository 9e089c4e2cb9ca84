"""What a run will take, before it starts: by the speed of one batch here, or by the data sheets of named cards."""

from gradex_fast.plan.forecast import forecast
from gradex_fast.plan.measured import plan, print_plan
from gradex_fast.plan.show import print_forecast

__all__ = ["forecast", "plan", "print_forecast", "print_plan"]
