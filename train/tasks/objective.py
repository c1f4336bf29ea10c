"""stub"""

from corpus.train.objective import Objective


class TaskObjective(Objective):
    pass
