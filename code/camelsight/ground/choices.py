"""What params.yaml may choose among, where both its check and the room that does the work must know."""

BASELINES = ("mean", "blank", "uniform", "noise", "shuffled")  # of attribution methods
PRIOR = 8192  # points of the prior from which the walkers of the likelihood start
