"""Scripted behaviours to measure learned ones against, one module per kind of family.

``python -m benchmarks.references`` measures them, and the trained references, for
docs/families.md; `measure.SCRIPTED` says which module is whose.

``told(env)`` knows the task, ``blind(env)`` neither knows it nor adapts, and ``adapting(env)``
learns it from rewards over the episodes of a trial. Each returns a function ``act``:
``act(obs (n, O)) -> action (n, A)``, for `adapting` ``act(obs, prev_reward, new_episode)`` with
the rewards of the previous step (n,) and whether `obs` starts an episode (n,). An `adapting`
serves one trial; make another for the next.
"""
