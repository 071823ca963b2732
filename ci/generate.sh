#!/usr/bin/env bash
# Writes the Rust code of the Cap'n Proto schemas: schema/capnp/*.capnp -> schema/src/generated/*_capnp.rs.
# With --check: fails if the committed code is not what the schemas give. Needs the program capnp (Debian: capnproto).
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo run --quiet --package xtask -- generate "$@"
