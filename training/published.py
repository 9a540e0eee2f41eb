"""What others published on the same task families: return per episode, and what it took.

The papers: MAML (Finn et al. 2017), PEARL (Rakelly et al. 2019), ProMP (Rothfuss et al. 2019),
RL2 (Duan et al. 2016), VariBAD (Zintgraf et al. 2020), ContraBAR (Choshen & Tamar 2023), RESeL
(Luo et al. 2024). PEARL's data hold RL2, MAML and ProMP too. All of it is on MuJoCo 1.3 to 2.x.
"""

from dataclasses import dataclass

PEARL_DATA = "data of Rakelly et al. 2019"
VARIBAD_SOURCE = "Zintgraf et al. 2020"
CONTRABAR_SOURCE = "Choshen & Tamar 2023"
RESEL_SOURCE = "Luo et al. 2024"


@dataclass(frozen=True)
class Published:
    """One published figure."""

    family: str
    method: str
    returns: dict[str, float]
    """By episode, "1", or by what it is a mean of, "3-4" or "after adaptation"."""
    env_steps: int | None
    """In meta-training; None where the source that we have does not say."""
    seeds: int | None
    """How many trainings; None where the source that we have does not say."""
    source: str

    def last(self) -> float:
        """The return after most adaptation."""
        return list(self.returns.values())[-1]


def published(family: str) -> list[Published]:
    """What there is on a family."""
    return [row for row in PUBLISHED if row.family == family]


def _pearl(family: str, episodes: str, value: float, env_steps: float) -> Published:
    return Published(family, "PEARL", {episodes: value}, round(env_steps), 5, PEARL_DATA)


def _rl2(family: str, value: float) -> Published:
    return Published(family, "RL2", {"1-2": value}, 40_000_000, None, PEARL_DATA)


def _gradient(method: str, family: str, value: float) -> Published:
    return Published(family, method, {"after adaptation": value}, 320_000_000, None, PEARL_DATA)


def _varibad(family: str, first: float, second: float) -> Published:
    returns = {"1": first, "2": second}
    return Published(family, "VariBAD", returns, 100_000_000, 10, VARIBAD_SOURCE)


def _contrabar(family: str, first: float, second: float) -> Published:
    return Published(family, "ContraBAR", {"1": first, "2": second}, None, None, CONTRABAR_SOURCE)


def _resel(family: str, value: float) -> Published:
    return Published(family, "RESeL", {"each": value}, 5_000_000, None, RESEL_SOURCE)


PUBLISHED = (
    _pearl("halfcheetah-vel", "3-4", -42.7, 0.5e6),
    _pearl("halfcheetah-vel", "3-4", -31.9, 1e6),
    _pearl("halfcheetah-vel", "3-4", -32.4, 2.2e6),
    _rl2("halfcheetah-vel", -34.6),
    _gradient("MAML", "halfcheetah-vel", -140),
    _gradient("ProMP", "halfcheetah-vel", -166),
    _varibad("halfcheetah-vel", -24.8, -26.1),
    _contrabar("halfcheetah-vel", -17.9, -19.1),
    _resel("halfcheetah-vel", -16.5),
    _pearl("halfcheetah-dir", "6-7", 968, 0.5e6),
    _pearl("halfcheetah-dir", "6-7", 1210, 1e6),
    _pearl("halfcheetah-dir", "6-7", 1887, 5e6),
    _rl2("halfcheetah-dir", 980),
    _gradient("MAML", "halfcheetah-dir", 364),
    _gradient("ProMP", "halfcheetah-dir", 571),
    _varibad("halfcheetah-dir", 1900, 1930),
    _contrabar("halfcheetah-dir", 1852, 1975),
    _resel("halfcheetah-dir", 2507),
    _pearl("ant-dir", "3-4", 1082, 3.2e6),
    _rl2("ant-dir", 708),
    _gradient("MAML", "ant-dir", 501),
    _gradient("ProMP", "ant-dir", 129),
    _varibad("ant-dir-1rad", 1293, 1315),
    _contrabar("ant-dir-1rad", 1431, 1406),
    _resel("ant-dir-1rad", 1266),
    _pearl("ant-goal", "6-7", -201, 12e6),
    _rl2("ant-goal", -523),
    _gradient("MAML", "ant-goal", -402),
    _gradient("ProMP", "ant-goal", -460),
    _varibad("ant-goal", -128, -99),
    _contrabar("ant-goal", -139, -94),
    _pearl("humanoid-dir", "3-4", 882, 1.1e6),
    _rl2("humanoid-dir", 273),
    _gradient("MAML", "humanoid-dir", 203),
    _gradient("ProMP", "humanoid-dir", 513),
    _varibad("humanoid-dir", 997, 1451),
    _contrabar("humanoid-dir", 1328, 1358),
    _pearl("walker-rand-params", "3-4", 729, 4.8e6),
    _rl2("walker-rand-params", 514),
    _gradient("MAML", "walker-rand-params", 468),
    _gradient("ProMP", "walker-rand-params", 343),
    _varibad("walker-rand-params", 988, 992),
    _contrabar("walker-rand-params", 1074, 1086),
)
