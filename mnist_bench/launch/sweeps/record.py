"""What adds to a sweep's folder, and refuses what does not belong there."""

import json

from filelock import FileLock

from mnist_bench.analysis.sweeps import SweepFolder
from mnist_bench.config.compose import as_given
from mnist_bench.config.identity import Role, computed, role
from mnist_bench.errors import BenchError, ConfigError
from mnist_bench.launch.sweeps.plan import Plan, Settings
from mnist_bench.runs.folder import atomic_write
from mnist_bench.runs.records import saved_digest


class SweepRecord(SweepFolder):
    """The folder of a sweep, for those that add to it."""

    def extend(self, plan: Plan, command: str = "") -> dict[str, str]:
        """Take a plan's runs among those of this sweep; return all their folders by digest.

        `command` is the one that asks for them.

        Raises:
            ConfigError: as `refuse_another`.
        """
        with FileLock(self.path / ".sweep.lock"):
            known = self._read()
            self.refuse_another(plan)
            names = dict(known.get("jobs", {})) or self._found()
            taken = set(names.values())
            for job in plan.jobs:
                if job.digest not in names:
                    name = job.name(known.get("varied", ()))
                    name = name if name not in taken else f"{name}~{job.digest[:8]}"
                    names[job.digest] = name
                    taken.add(name)
            content = {
                "shared": [*plan.shared],
                "varied": sorted({*known.get("varied", ()), *(axis.key for axis in plan.axes)}),
                "moved": sorted({*known.get("moved", ()), *plan.moved}),
                "bases": {**known.get("bases", {}), **plan.bases},
                "jobs": names,
                "command": command,
            }
            if content != known:
                with atomic_write(self.file) as file:
                    json.dump(content, file, indent=1)
        return names

    def _found(self) -> dict[str, str]:
        """Return the runs that lie in the folder, of which no record tells."""
        names = {}
        for path in sorted(self.path.iterdir()):
            if not path.is_dir():
                continue
            try:
                known = saved_digest(path)
            except BenchError:
                continue  # no run, or one whose folder cannot be used
            if known is not None:
                names[known] = path.name
        return names

    def refuse_another(self, plan: Plan) -> None:
        """Refuse runs that differ from those that are there by more than what varies.

        Raises:
            ConfigError: names what differs.
        """
        known = self._read()
        if not known:
            return
        free = {*known["moved"], *plan.moved, *known["varied"], *(a.key for a in plan.axes)}
        both = known["bases"].keys() & plan.bases.keys()
        for name in sorted(both):
            then, now = computed(known["bases"][name]), computed(plan.bases[name])
            self._refuse_difference(then, now, free)
        if not both:
            then, now = _assigned(known["shared"]), _assigned(plan.shared)
            self._refuse_difference(then, now, free)

    def _refuse_difference(self, then: Settings, now: Settings, free: set[str]) -> None:
        different = [
            key
            for key in sorted(then.keys() | now.keys())
            if key not in free and role(key) is not Role.ignored and then.get(key) != now.get(key)
        ]
        if different:
            made, given = (
                ", ".join(f"{key}={as_given(has.get(key, 'its default'))}" for key in different)
                for has in (then, now)
            )
            again = f": {command}" if (command := self.command()) else "."
            raise ConfigError(
                f"The sweep {self.path.name} was made with {made}, and this has {given}: give it "
                f"another sweep.name, or what it was made with{again}"
            )


def _assigned(lines: list[str] | tuple[str, ...]) -> dict[str, str]:
    pairs = (line.lstrip("+").partition("=") for line in lines)
    return {key: value for key, _, value in pairs if not key.startswith(("hydra", "sweep"))}
