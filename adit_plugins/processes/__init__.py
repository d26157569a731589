"""The only place that starts processes: work on many items, of which none can stop the others.

Two verbs: `map` gives one result an item, in order; `stream` gives what an item's work yields, as
it comes. `ProcessesExecutor` is what both stand on, for whoever wants futures. An item that kills
its process or holds it too long costs its own result; `after_loss` says what is tried again.
`Program` is for what is not ours, such as the Python of another environment.
"""

from adit_plugins.processes.environment import available_cores, visible_devices
from adit_plugins.processes.executor import ProcessesExecutor
from adit_plugins.processes.messages import DIED, TIME_LIMIT, At, Each, End, Part, collect, tell
from adit_plugins.processes.programs import Program, run_program
from adit_plugins.processes.retry import DEATHS, Attempt, after_loss
from adit_plugins.processes.verbs import MAP_SECONDS, map, stream  # noqa: A004 - processes.map is its name
from adit_plugins.processes.worker import LostError, WorkerStartError, launch

__all__ = [
    "DEATHS",
    "DIED",
    "MAP_SECONDS",
    "TIME_LIMIT",
    "At",
    "Attempt",
    "Each",
    "End",
    "LostError",
    "Part",
    "ProcessesExecutor",
    "Program",
    "WorkerStartError",
    "after_loss",
    "available_cores",
    "collect",
    "launch",
    "map",
    "run_program",
    "stream",
    "tell",
    "visible_devices",
]
