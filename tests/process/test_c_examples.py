"""The example programs of the C client, built as their first lines say, against a whole exchange."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.clients import AdminClient
from ringbuf.wire.messages import CancelReason, ListStatusType, OrdStatus, Template
from tests.kit.engine_site import EngineSite
from tests.kit.trading import BAND, funded_account, hmac_key, market

REPO = Path(__file__).resolve().parents[2]
SEAL = b"k" * 32
KEY_ID = "DESK"
LOW, HIGH, QUANTITY = 400, 600, 2


@pytest.fixture
def site(tmp_path: Path) -> Iterator[EngineSite]:
    with EngineSite(tmp_path, seal_key=SEAL) as running:
        yield running


def run_example(site: EngineSite, folder: Path, name: str, *words: int) -> list[str]:
    """Build and run it as a funded trader; return the lines it printed."""
    with AdminClient(site.admin_path) as admin:
        pair, account = market(admin, **BAND), funded_account(admin)
        secret = hmac_key(admin, account, KEY_ID, SEAL)
        session = admin.session_create(account_id=account)

    program = folder / name
    build = ["cc", "-Wall", "-Wextra", "-Werror", "-I", "gateway/clients/c", "-I", "ringbuf/include"]
    subprocess.run([*build, f"gateway/clients/c/{name}.c", "-o", str(program)], cwd=REPO, check=True)
    command = [str(program), "127.0.0.1", str(site.port), str(session), KEY_ID, secret.hex()]
    command += map(str, (pair, *words))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_one_order_is_placed_and_canceled(site: EngineSite, tmp_path: Path) -> None:
    lines = run_example(site, tmp_path, "example", LOW, QUANTITY)

    templates = [int(line.split()[-1]) for line in lines]
    assert [each for each in templates if each != Template.SESSION_BOUND] == [
        Template.ORDER_ACCEPTED,
        Template.ORDER_CANCELED,
    ]


def test_linked_requests_move_an_order_and_place_a_list(site: EngineSite, tmp_path: Path) -> None:
    lines = run_example(site, tmp_path, "list_example", LOW, HIGH, QUANTITY)

    statuses = [int(line.split()[-1]) for line in lines if line.startswith("accepted")]
    assert statuses == [OrdStatus.NEW, OrdStatus.NEW, OrdStatus.NEW, OrdStatus.UNTRIGGERED]
    reasons = [int(line.split()[-1]) for line in lines if line.startswith("canceled")]
    assert len(reasons) == 4
    assert set(reasons) <= set(CancelReason)
    assert sum(line.startswith("mass cancel: ") for line in lines) == 1
    assert f"list 42: status {ListStatusType.EXEC_STARTED}, code 0" in lines
