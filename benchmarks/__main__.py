"""python -m benchmarks: what can be measured, and which claim each figure backs."""

from __future__ import annotations

from benchmarks.index import benchmarks


def main() -> None:
    for one in benchmarks():
        print(f"{one.name}: {one.measures}")
        print(f"    {one.claim or 'backs no claim: it is for whoever changes the code'}")
    print("\npython -m benchmarks.NAME --help; python -m benchmarks.all runs every one in short form.")


if __name__ == "__main__":
    main()
