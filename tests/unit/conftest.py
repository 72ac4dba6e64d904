from __future__ import annotations

import pytest

from commands import Cli, Done
from tapps_otel.cli import main


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the command line in this process."""

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        said = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Done(code, said.out, said.err)

    return run
