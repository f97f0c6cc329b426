"""The first thing in a peer's process: make this folder a package, whatever else is installed."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

folder = Path(__file__).parent
spec = spec_from_file_location(
    "peer_adapters", folder / "__init__.py", submodule_search_locations=[str(folder)]
)
assert spec is not None
assert spec.loader is not None
package = module_from_spec(spec)
sys.modules[spec.name] = package
spec.loader.exec_module(package)

from peer_adapters.serve import main  # type: ignore[import-not-found]  # noqa: E402

main()
