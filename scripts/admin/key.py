"""`bullring key create|revoke`: Ed25519 by default; the private key is made here and never leaves this machine."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, generate_private_key

from gateway.auth import hmac_secret
from gateway.web.auth import RSA_BITS_MAX, RSA_BITS_MIN, rsa_digest
from ringbuf.wire import messages as wire
from scripts.admin.account import require_account
from scripts.admin.link import AdminLink
from scripts.admin.session import create_session
from scripts.arguments import add_common, command_parser, config_of, emit_one
from scripts.config import Config
from scripts.exit_codes import CommandError, ExitCode
from scripts.node import Node

PERMISSIONS = {flag.name.lower().replace("_", "-"): flag for flag in wire.Permissions if flag.name}
PERMISSIONS_DEFAULT = "read,trade"
KEY_BYTES = 32
KINDS = ("ed25519", "hmac", "rsa")
RSA_BITS = 2048
KEY_ID_BYTES = 12


def run(arguments: Sequence[str]) -> int:
    parser = command_parser("key", "API keys: what a client signs its logon with.")
    actions = parser.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="create a key, and a session to use it on")
    create.add_argument("--account", type=int, required=True, metavar="N")
    kind = create.add_mutually_exclusive_group()
    kind.add_argument(
        "--kind", choices=KINDS, default="ed25519", help="what it signs with (default ed25519); a pair is made here"
    )
    kind.add_argument("--rsa-public", type=Path, metavar="FILE", help="public RSA key, PEM, for REST and WebSocket")
    kind.add_argument(
        "--ed25519-public", type=Path, metavar="FILE",
        help="public key: PEM, OpenSSH or 32 raw bytes; without it a pair is made here",
    )  # fmt: skip
    kind.add_argument("--hmac", action="store_const", const="hmac", dest="kind", help="as --kind hmac")
    create.add_argument(
        "--permissions", default=PERMISSIONS_DEFAULT, metavar="LIST",
        help=f"of {','.join(PERMISSIONS)} (default {PERMISSIONS_DEFAULT})",
    )  # fmt: skip
    create.add_argument(
        "--save", type=Path, metavar="FILE", help="where to write the secret (default: keys/ID in data)"
    )
    create.add_argument("--no-session", action="store_true", help="do not create a session")
    revoke = actions.add_parser("revoke", help="a revoked key can log on no more")
    revoke.add_argument("key_id")
    for action in (create, revoke):
        add_common(action, nested=True)
    options = parser.parse_args(arguments)
    config = config_of(options)

    saved: Path | None
    with AdminLink.open(config) as link:
        if options.action == "revoke":
            link.command(wire.KeyRevoke(access_key_id=options.key_id), f"revoking key {options.key_id}")
            emit_one({"key_id": options.key_id, "revoked": True}, as_json=options.json)
            return ExitCode.OK
        permissions = parse_permissions(options.permissions)
        public = read_public_key(options.ed25519_public) if options.ed25519_public else None
        require_account(link, options.account)
        chosen: str = "rsa" if options.rsa_public else options.kind
        if chosen == "hmac":
            key_id, saved = create_hmac_key(link, config, options.account, permissions, options.save)
        elif chosen == "rsa":
            rsa = read_rsa_public(options.rsa_public) if options.rsa_public else None
            key_id, saved = create_rsa_key(link, config, options.account, permissions, rsa, options.save)
        else:
            key_id, saved = create_ed25519_key(link, config, options.account, permissions, public, options.save)
        session = None if options.no_session or chosen == "rsa" else create_session(link, options.account)
    row = {
        "key_id": key_id,
        "api_key": key_id,
        "api_secret": saved.read_text().strip() if saved is not None and options.json else None,
        "session": session,
        "account": options.account,
        "kind": "hmac-sha256" if chosen == "hmac" else chosen,
        "permissions": options.permissions,
        "secret_saved_in": None if saved is None else str(saved),
    }
    if options.json:
        node = Node.load(config.run_dir)
        row["urls"] = {"binary": node.binary_address, **node.web_urls()}
    else:
        del row["api_key"], row["api_secret"]
    emit_one(row, as_json=options.json)
    return ExitCode.OK


def parse_permissions(text: str) -> wire.Permissions:
    permissions = wire.Permissions(0)
    for name in text.split(","):
        if name not in PERMISSIONS:
            raise CommandError(f"--permissions {text}: {name!r} is none of {', '.join(PERMISSIONS)}", ExitCode.USAGE)
        permissions |= PERMISSIONS[name]
    return permissions


def create_ed25519_key(
    link: AdminLink,
    config: Config,
    account: int,
    permissions: wire.Permissions,
    public: bytes | None = None,
    save: Path | None = None,
) -> tuple[str, Path | None]:
    """Create a key; make and save a private key if no public one is given. Returns key id and where it was saved."""
    key_id = new_key_id()
    path = None
    if public is None:
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
        path = save or config.keys_dir / f"{key_id}.pem"
        # Saved first: a key in the log whose private half is lost would be of no use.
        save_secret(
            path,
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )
    _create(link, key_id, account, public, permissions, wire.CredentialType.ED25519)
    return key_id, path


def create_hmac_key(
    link: AdminLink, config: Config, account: int, permissions: wire.Permissions, save: Path | None = None
) -> tuple[str, Path]:
    """Create a key whose secret follows from the seal key and a salt; only the salt is in the log."""
    key_id = new_key_id()
    salt = secrets.token_bytes(KEY_BYTES)
    try:
        seal = config.seal_key_path.read_bytes()
    except OSError as error:
        raise CommandError(
            f"cannot read the seal key {config.seal_key_path}: {error.strerror}", ExitCode.NO_PERMISSION
        ) from error
    path = save or config.keys_dir / f"{key_id}.hmac"
    save_secret(path, hmac_secret(seal, key_id, salt).hex().encode() + b"\n")
    _create(link, key_id, account, salt, permissions, wire.CredentialType.HMAC_SHA256)
    return key_id, path


def create_rsa_key(
    link: AdminLink,
    config: Config,
    account: int,
    permissions: wire.Permissions,
    public: RSAPublicKey | None = None,
    save: Path | None = None,
) -> tuple[str, Path | None]:
    """Create a key for REST and WebSocket: its digest goes into the log, the public key into a file of the gateway."""
    key_id = new_key_id()
    path = None
    if public is None:
        private = generate_private_key(public_exponent=65537, key_size=RSA_BITS)
        public = private.public_key()
        path = save or config.keys_dir / f"{key_id}.pem"
        save_secret(
            path,
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    save_secret(config.web_dir / "rsa" / f"{key_id}.pem", pem)
    _create(link, key_id, account, rsa_digest(public), permissions, wire.CredentialType.RSA)
    return key_id, path


def read_rsa_public(path: Path) -> RSAPublicKey:
    """Return a public RSA key of 2048..4096 bits. Raises CommandError."""
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", ExitCode.NO_INPUT) from error
    except ValueError as error:
        raise CommandError(f"{path}: must be a public RSA key in PEM form", ExitCode.BAD_INPUT) from error
    if not isinstance(key, RSAPublicKey) or not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
        raise CommandError(
            f"{path}: must be a public RSA key of {RSA_BITS_MIN}..{RSA_BITS_MAX} bits", ExitCode.BAD_INPUT
        )
    return key


def _create(
    link: AdminLink,
    key_id: str,
    account: int,
    material: bytes,
    permissions: wire.Permissions,
    credential: wire.CredentialType,
) -> None:
    message = wire.KeyCreate(
        access_key_id=key_id,
        material=material,
        account_id=account,
        permissions=permissions,
        credential_type=credential,
    )
    link.command(message, f"key of account {account}")


def new_key_id() -> str:
    return "BR" + base64.b32encode(secrets.token_bytes(KEY_ID_BYTES)).decode().rstrip("=")


def read_public_key(path: Path) -> bytes:
    """Return the 32 raw bytes of an Ed25519 public key. Raises CommandError naming what is allowed."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}", ExitCode.NO_INPUT) from error
    if len(data) == KEY_BYTES:
        return data
    try:
        load = serialization.load_ssh_public_key if data.startswith(b"ssh-") else serialization.load_pem_public_key
        key = load(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CommandError(
            f"{path}: no public key: must be PEM, an OpenSSH line or 32 raw bytes", ExitCode.BAD_INPUT
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise CommandError(f"{path}: must be an Ed25519 key", ExitCode.BAD_INPUT)
    return key.public_bytes_raw()


def save_secret(path: Path, data: bytes) -> None:
    """Write a new file that only its owner may read. Raises CommandError; never overwrites."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
    except OSError as error:
        raise CommandError(f"cannot write the secret to {path}: {error.strerror}", ExitCode.CANNOT_CREATE) from error
