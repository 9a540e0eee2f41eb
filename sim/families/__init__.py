"""The task families of the meta-RL literature, one file per body."""
