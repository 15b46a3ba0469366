"""Disks that are full, out of inodes or read-only: one line, status 2, and nothing whole is lost.

What is written goes to a small file system in memory, whose size is drawn so that it is full at any
moment from the first file to the last one. Given more room, the same command must end as if there
had always been enough. Mounting needs root.
"""

import random
import shutil
import subprocess
from pathlib import Path

from tests.campaigns.campaign import Campaign
from tests.campaigns.forked import ForkedCommand, import_commands
from tests.campaigns.kills import Building, Training, Victim, prepare

ROOM = "size=256m,nr_inodes=100000"
INODES = (4, 150)


class Planning(Training):
    """Training whose plan alone is written to the small disk."""

    def start(
        self, directory: Path, output: Path, environment: dict[str, str], *more: str
    ) -> ForkedCommand:
        plans = f"--config.data.plan_dir={directory}"
        return super().start(self.place / "run", output, environment, plans, *more)

    def fault(self, directory: Path) -> str | None:
        return super().fault(self.place / "run")


# What is written there, in bytes, if there is room.
NEEDS: dict[type[Victim], int] = {Training: 3_000_000, Building: 1_500_000, Planning: 60_000}


def mount(place: Path, options: str) -> None:
    """Mount an empty file system in memory, or change the one that is mounted."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"full_disk mounts small file systems, as root: {done.stderr.strip()}")


def attempt(victim: Victim, disk: Path, limit: str) -> str | None:
    """Run on a small disk, and again with room; return what was wrong."""
    output, directory = victim.place / "output.txt", disk / "run"
    mount(disk, limit)
    try:
        status = victim.start(directory, output, {}).wait()
        if status not in (0, 2):
            return f"status {status}: {victim_text(output)}"
        if status == 2 and (fault := _fault_of_refusal(output)):
            return fault
        mount(disk, f"remount,rw,{ROOM}")
        if status == 2 and victim.start(directory, output, {}).wait() != 0:
            return f"with room: {victim_text(output)}"
        return victim.fault(directory)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _fault_of_refusal(output: Path) -> str | None:
    text = output.read_text(errors="replace")
    lines = [line for line in text.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    if "Traceback" in text or len(lines) != 1:
        return f"not one line, but {victim_text(output)}"
    return None


def victim_text(output: Path) -> str:
    """Return the end of what was printed."""
    return output.read_text(errors="replace")[-1500:]


def draw_limit(need: int, choose: random.Random) -> tuple[str, str]:
    """Draw what the disk lacks; return its kind and the options of the mount."""
    kind = choose.choice(["space", "space", "space", "inodes", "inodes", "read-only"])
    if kind == "space":
        return kind, f"size={4 * (1 + round(need * choose.random()) // 4096)}k"
    if kind == "inodes":
        return kind, f"size=256m,nr_inodes={choose.randint(*INODES)}"
    return kind, f"ro,{ROOM}"


def main() -> None:
    """Fill disks."""
    campaign = Campaign("full_disk", count=60, description=str(__doc__).partition("\n")[0])
    import_commands()
    with campaign.directory() as directory:
        chosen = [list(NEEDS)[number % len(NEEDS)] for number in campaign.numbers]
        used = [base for base in (Training, Building) if any(issubclass(k, base) for k in chosen)]
        prepare(directory, used)
        disk = directory / "disk"
        disk.mkdir()
        for number in campaign.numbers:
            choose = random.Random(f"{campaign.seed} {number}")
            kind = list(NEEDS)[number % len(NEEDS)]
            lack, limit = draw_limit(NEEDS[kind], choose)
            place = directory / f"case{number}"
            place.mkdir()
            fault = attempt(kind(directory, place), disk, limit)
            name = f"{kind.__name__.lower()}: {lack}"
            campaign.count_case(name, fault and f"{limit}: {fault}", number=number)
            shutil.rmtree(place)
    campaign.finish()


if __name__ == "__main__":
    main()
