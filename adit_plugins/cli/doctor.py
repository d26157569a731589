"""`adit doctor`: what is installed, what was found, and what to install for the rest."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adit_plugins._version import __version__

if TYPE_CHECKING:
    from adit_model.config import ADiTConfig

PACKAGES = (
    "torch", "safetensors", "numpy", "ase", "pymatgen", "rdkit", "gemmi", "smact", "posebusters",
    "chgnet", "mace-torch", "entrypoints",
)  # fmt: skip


@click.command()
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Show versions, devices, weights and extras; exit status 1 if something needed is missing."""
    sound = [
        _section("Versions", _versions()),
        _section("Devices", _devices()),
        _section("Weights", _weights()),
        _section("Plugins", _plugins()),
        _section("Extras", _extras()),
        _section("Environments", _environments()),
    ]
    ctx.exit(0 if all(sound) else 1)


Finding = tuple[bool | None, str, str]  # fine, missing but needed (False), or optional (None)


def _section(title: str, findings: Iterator[Finding]) -> bool:
    """Print a section as it is found; False if something needed is missing."""
    click.echo(title)
    sound = True
    for good, name, text in findings:
        mark = {True: "ok", False: "MISSING", None: "-"}[good]
        click.echo(f"  {mark:8}{name:22}{text}")
        sound = sound and good is not False
    return sound


def _versions() -> Iterator[Finding]:
    python_fits = sys.version_info >= (3, 11)
    yield python_fits, "python", f"{platform.python_version()} ({sys.executable})"
    yield True, "adit-plugins", f"{__version__} ({Path(__file__).parents[1]})"
    for name in PACKAGES:
        try:
            yield True, name, version(name)
        except PackageNotFoundError:
            yield False, name, f"pip install {name}"


def _devices() -> Iterator[Finding]:
    if find_spec("torch") is None:
        return
    import torch

    yield True, "cpu", f"{torch.get_num_threads()} threads"
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        memory = properties.total_memory / 2**30
        yield True, f"cuda:{i}", f"{properties.name}, {memory:.0f} GiB"
    if not torch.cuda.is_available():
        build = torch.version.cuda
        yield (
            None,
            "cuda",
            f"no GPU found (torch is built for {f'CUDA {build}' if build else 'CPU'})",
        )


def _weights() -> Iterator[Finding]:
    if find_spec("torch") is None:
        return
    from adit_model.checkpoints import folder as checkpoint

    folders = sorted(p.parent for p in checkpoint.WEIGHTS_FOLDER.glob(f"*/{checkpoint.CONFIG}"))
    if checkpoint.DEFAULT_NAME not in {folder.name for folder in folders}:
        yield False, checkpoint.DEFAULT_NAME, "not in this installation; pass --checkpoint DIR"
    for folder in folders:
        try:
            config, tensors, identity = checkpoint.load(folder)
        except checkpoint.CheckpointError as error:
            yield False, folder.name, str(error)
            continue
        millions = sum(tensor.numel() for tensor in tensors.values()) / 1e6
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6
        sizes = f"at most {config.max_num_atoms} atoms"
        yield (
            True,
            folder.name,
            f"{millions:.1f} M parameters, {size:.0f} MB, {sizes}, checksums match ({identity})",
        )
        yield from _conditions(config)


def _conditions(config: ADiTConfig) -> Iterator[Finding]:
    """What samples of a checkpoint can be asked for."""
    found = {c.name: c for c in config.prior.conditions} if config.prior else {}
    found |= {c.name: c for c in (config.denoiser.conditions[1:] if config.denoiser else ())}
    for name, condition in found.items():
        kinds = "" if len(condition.kinds) > 1 else f" of {condition.kinds[0]}s"
        if condition.type == "number":
            text = f"{condition.low:g} to {condition.high:g} {condition.unit}".rstrip()
            yield True, "", f"--condition {name}=VALUE, {text}{kinds}"
        elif condition.type == "class":
            yield True, "", f"--condition {name}=CLASS, 1 to {condition.size}{kinds}"
    if config.prior is not None and "elements" in found:
        yield True, "", "elements first: --formula, --contains, --elements, ... are told"


def _plugins() -> Iterator[Finding]:
    from adit_plugins import registry

    for group in registry.GROUPS:
        found = registry.plugins(group)
        if not found:
            yield None, group, "none"
        seen: set[str] = set()
        for plugin in found:
            text = f"{group}, from {plugin.distribution}"
            if plugin.name in seen:
                yield None, plugin.name, f"{text}: not used, the name is taken by the one above"
                continue
            seen.add(plugin.name)
            try:
                plugin.load()
            except (registry.MissingExtraError, registry.BrokenPluginError) as error:
                yield None, plugin.name, f"{text}: {error}"
            else:
                yield True, plugin.name, text


def _extras() -> Iterator[Finding]:
    from adit_plugins.registry import EXTRAS

    try:
        requires("adit-plugins")
    except PackageNotFoundError:
        yield False, "adit-plugins", "on the path, but not installed: pip install -e ."
    for module, extra in sorted(EXTRAS.items(), key=lambda item: item[1]):
        if find_spec(module) is not None:
            yield True, extra, f"{module} found"
        else:
            yield None, extra, f'pip install "adit-plugins[{extra}]"'


def _environments() -> Iterator[Finding]:
    from adit_plugins.relax.environments import RECIPES, environments

    there = environments()
    for each in there:
        if each.finished:
            yield True, each.name, f"{each.versions}, Python {each.python}"
        else:
            yield None, each.name, f"never finished: adit env remove {each.name}"
    for name in sorted(RECIPES.keys() - {each.name for each in there}):
        yield None, name, f"adit env create {name}: {RECIPES[name].about}"
