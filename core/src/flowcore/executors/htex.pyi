from flowcore_htex.errors import InterchangeLost as InterchangeLost
from flowcore_htex.errors import ManagerLost as ManagerLost
from flowcore_htex.errors import MemoryExceeded as MemoryExceeded
from flowcore_htex.errors import TaskWalltimeExceeded as TaskWalltimeExceeded
from flowcore_htex.errors import VersionMismatch as VersionMismatch
from flowcore_htex.errors import WorkerLost as WorkerLost
from flowcore_htex.executor import HighThroughputExecutor as HighThroughputExecutor
