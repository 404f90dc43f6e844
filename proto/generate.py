"""Regenerate `dsp.pb` from the `.proto` files here: ``python -m proto.generate`` (``make proto``).

protoc names Python modules after proto packages (``com.iabtechlab...``); ours live under ``dsp.pb``, so the imports
between generated files are rewritten. A test regenerates into a scratch directory and compares.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
TARGET = ROOT.parent / "dsp" / "pb"
_IMPORT = re.compile(r"^(from|import) ((?:com|dsp|tencent)\.[\w.]+)", re.M)

_DOC = '''"""Generated protobuf code, nothing else; ``make proto`` remakes it from ``proto/``.

OpenRTB: ``from dsp.pb.com.iabtechlab.openrtb.v2 import openrtb_pb2``; our service:
``from dsp.pb.dsp.v1 import bidder_pb2, bidder_pb2_grpc``; RTA: ``from dsp.pb.tencent.ad.rta import rta_pb2``;
ARTF: ``from dsp.pb.com.iabtechlab.bidstream.mutation.v1 import mutation_pb2``.
"""
'''


def generate() -> dict[str, str]:
    """Every file of ``dsp/pb`` as {path relative to it: text}. Raises RuntimeError where protoc refuses."""
    sources = sorted(str(p.relative_to(ROOT)) for p in ROOT.rglob("*.proto"))
    bundled = str(Path(protoc.__file__).parent / "_proto")
    with tempfile.TemporaryDirectory() as scratch:
        args = ["protoc", f"-I{ROOT}", f"-I{bundled}", f"--python_out={scratch}", f"--pyi_out={scratch}", *sources]
        services = [s for s in sources if re.search(r"^service ", (ROOT / s).read_text(), re.M)]
        grpc = ["protoc", f"-I{ROOT}", f"-I{bundled}", f"--grpc_python_out={scratch}", *services]
        if protoc.main(args) != 0 or protoc.main(grpc) != 0:
            raise RuntimeError("protoc failed; its message is above")
        made = {p.relative_to(scratch): p.read_text() for p in sorted(Path(scratch).rglob("*.py*"))}
    files = {"__init__.py": _DOC}
    for path, text in made.items():
        for parent in path.parents:
            if parent.name:
                files.setdefault(str(parent / "__init__.py"), "")
        files[str(path)] = _IMPORT.sub(r"\1 dsp.pb.\2", text)
    return files


def main() -> None:
    """Write the generated files and remove those that are no longer made."""
    files = generate()
    for old in TARGET.rglob("*.py*"):
        if "__pycache__" not in old.parts and str(old.relative_to(TARGET)) not in files:
            old.unlink()
    for name, text in files.items():
        path = TARGET / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(f"{len(files)} files in {TARGET}", file=sys.stderr)


if __name__ == "__main__":
    main()
