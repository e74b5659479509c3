"""A network of timm (or MediaPipe's) as a feature extractor, with pretrained weights where they are available."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from timm.layers import Format
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

import fasthamer
from fasthamer.files.safe_checkpoint import check_stored, check_tensors
from fasthamer.files.weights import check_weights, shapes
from fasthamer.one_line import one_line
from fasthamer.students import landmark_maps
from fasthamer.students.landmark_maps import LandmarkMaps
from fasthamer.students.shipped import student_file

logger = logging.getLogger(__name__)

logging.getLogger("timm.models._builder").setLevel(logging.ERROR)  # it warns of the unused classifier

SHIPPED = {  # timm's name: weights of its stages in the package, see tools/assets/make_backbone.py
    "mobilenetv3_large_100": Path(fasthamer.__file__).parent / "assets" / "mobilenetv3_l.safetensors",
}
HUB_TIMEOUT = 4.0  # seconds to wait for the hub before starting without its weights


class Hub:
    """The Hugging Face hub and its cache on the disk.

    Args:
        endpoint: its address; None = the client's own setting.
        cache: folder of downloaded files; None = the client's own.
    """

    def __init__(self, endpoint: str | None = None, cache: Path | None = None) -> None:
        self.endpoint, self.cache = endpoint, cache

    def cached(self, config: Any) -> str | None:
        """The file of a timm config's weights, if it has been downloaded."""
        from huggingface_hub import try_to_load_from_cache

        if not config.hf_hub_id or config.custom_load:
            return None
        for filename in ("model.safetensors", "pytorch_model.bin"):
            path = try_to_load_from_cache(config.hf_hub_id, config.hf_hub_filename or filename, self.cache)
            if isinstance(path, str):
                return path
        return None

    def reach(self, repository: str) -> None:
        """Raises at once where the hub is out of reach; the client's own download retries for most of a minute."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(repository, "config.json", endpoint=self.endpoint)
        get_hf_file_metadata(url, timeout=HUB_TIMEOUT, endpoint=self.endpoint)


HUB = Hub()


class Backbone(nn.Module):
    """`backbone(image) -> (features of the chosen layers, last features)`; the same map twice when they are one.

    Several layers' maps are averaged to the coarsest grid and stand side by side.

    Args:
        name: timm's name, with or without a pretrained tag; or one of `landmark_maps`.
        image_size: pixels; only networks with a fixed input size (ViTs) are built differently for it.
        layer: `last`, or a name of `layers`, whose map is returned beside the last; or several with commas.
        pretrained: load timm's ImageNet weights; where they cannot be loaded, logs a warning and starts from shipped
            ones (`SHIPPED`) or from scratch.
        weights: a local .safetensors or .pth file of `timm.create_model(name)`'s state dict, used instead; or a
            student's file or a shipped student's name, whose backbone is used, whatever its decoder; or `shipped`.
        hub: where pretrained weights come from.
        batch_norm_eps: of every batch norm; None: timm's.
        end: layers behind the network's last map.
    """

    def __init__(
        self,
        name: str,
        image_size: int,
        layer: str = "last",
        pretrained: bool = False,
        weights: str | Path | None = None,
        hub: Hub = HUB,
        batch_norm_eps: float | None = None,
        end: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.name, self.image_size = name, image_size
        stored = _of_student(weights)
        self.network = _create(name, image_size, pretrained and not stored, None if stored else weights, hub)
        self.end = nn.Identity() if end is None else end
        for part in self.network.modules():
            if isinstance(part, nn.BatchNorm2d) and batch_norm_eps is not None:
                part.eps = batch_norm_eps
        if stored:
            source = f"{weights}: its student's backbone is not {name}"
            check_weights(stored, shapes(self.state_dict()), source)
            self.load_state_dict(stored)
        info: Any = self.network.feature_info
        self.layers: list[str] = info.module_name()
        names = [each.strip() for each in layer.split(",")]
        for each in names:
            if each not in ("last", *self.layers):
                raise ValueError(f"{name} has no layer {each!r}: choose last or one of {', '.join(self.layers)}")
        self.tapped = [len(self.layers) - 1 if each == "last" else self.layers.index(each) for each in names]
        # Only timm's general wrappers have it; networks with a class of their own for features are all NCHW.
        self.channels_last = getattr(self.network, "output_fmt", Format.NCHW) == Format.NHWC  # Swin
        tapped, last = self._try(image_size)
        self.layer_channels, self.channels = tapped.shape[1], last.shape[1]
        self.grid: tuple[int, int] = (last.shape[2], last.shape[3])  # of the last map
        self.frozen: list[nn.Module] = []  # see `freeze`
        self.frozen_stages = 0

    @torch.no_grad()
    def _try(self, image_size: int) -> tuple[Tensor, Tensor]:
        """The maps of one empty image: timm's tables of a network's maps are not always right.

        Raises:
            ValueError: the network does not take images of this size.
        """
        mode, device = self.network.training, next(self.network.parameters()).device
        self.network.eval()
        try:
            tapped, last = self(torch.zeros(1, 3, image_size, image_size, device=device))
            if tapped.ndim != 4 or last.ndim != 4:
                raise ValueError(f"its features are {tuple(last.shape)}, no map")
            return tapped, last
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            native = _native_size(self.name)
            remedy = f"STUDENT.IMAGE_SIZE {native} is its own size"
            if native == image_size:
                remedy = "choose another network"
            raise ValueError(
                f"{self.name!r} does not run as a backbone on images of {image_size} pixels ({reason}): {remedy}"
            ) from error
        finally:
            self.network.train(mode)

    def freeze(self, stages: int) -> None:
        """Freezes the first `stages` of `layers` and all before them: weights and batch statistics.

        Raises:
            ValueError: there are not that many stages, or their map would still change in training.
        """
        if not 0 <= stages <= len(self.layers):
            raise ValueError(f"{self.name} has {len(self.layers)} stages: STUDENT.FREEZE is 0 to {len(self.layers)}")
        self.frozen = self._until(self.layers[stages - 1]) if stages else []
        self.frozen_stages = stages
        for part in self.frozen:
            for parameter in part.parameters(recurse=False):
                parameter.requires_grad_(False)
        self.train(self.training)
        if stages and not self._is_fixed(stages):
            raise ValueError(self._unfrozen())

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        for part in self.frozen:
            part.training = False
        return self

    def _is_fixed(self, stages: int) -> bool:
        """Whether the last of `stages` gives a map that no parameter in training takes part in; runs one image."""
        mode, device = self.training, next(self.network.parameters()).device
        self.eval()
        with torch.enable_grad():
            features = self.network(torch.zeros(1, 3, self.image_size, self.image_size, device=device))[stages - 1]
        self.train(mode)
        return not features.requires_grad

    def _unfrozen(self) -> str:
        return f"{self.name}'s stages cannot be frozen: set STUDENT.FREEZE 0"

    def _until(self, layer: str) -> list[nn.Module]:
        """Every module from the input to the end of `layer`; timm registers them in the order they run."""
        modules = dict(self.network.named_modules())
        end = layer if layer in modules else layer.replace(".", "_")  # timm flattens some networks' names
        names = list(modules)
        within = [index for index, name in enumerate(names) if name == end or name.startswith(f"{end}.")]
        if not within:  # a ViT in timm's wrapper, or HRNet, whose stages are functions
            raise ValueError(self._unfrozen())
        return [modules[name] for name in names[: within[-1] + 1] if name and not end.startswith(f"{name}.")]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) normalised to (B, layer_channels, h', w') and (B, channels, h, w)."""
        return self.read_out(self.network(image))

    def read_out(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """What `forward` returns, from the maps of all stages as the network gives them."""
        if self.channels_last:
            maps = [features.permute(0, 3, 1, 2) for features in maps]
        last = self.end(maps[-1])
        tapped = [last if index == len(maps) - 1 else maps[index] for index in self.tapped]
        grid = min((each.shape[-2], each.shape[-1]) for each in tapped)
        averaged = [each if each.shape[-2:] == grid else adaptive_avg_pool2d(each, grid) for each in tapped]
        return averaged[0] if len(averaged) == 1 else torch.cat(averaged, 1), last


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels (0..1) that the network's published weights expect."""
    if name.startswith(landmark_maps.PREFIX):
        return landmark_maps.MEAN, landmark_maps.STD
    config: Any = timm.get_pretrained_cfg(name)
    return config.mean, config.std


def _native_size(name: str) -> int:
    if name.startswith(landmark_maps.PREFIX):
        return LandmarkMaps.image_size
    return timm.get_pretrained_cfg(name).input_size[-1]  # type: ignore[union-attr, index]


def _create(name: str, image_size: int, pretrained: bool, weights: str | Path | None, hub: Hub) -> nn.Module:
    if name.startswith(landmark_maps.PREFIX):
        if weights not in (None, "shipped"):
            raise ValueError(f"{name} starts from the weights in the package or a student's file, not from {weights}")
        return LandmarkMaps(name.removeprefix(landmark_maps.PREFIX), pretrained or weights == "shipped")
    if not timm.is_model(name.split(".")[0]):
        raise KeyError(f"timm has no network named {name!r}; timm.list_models('*part*') lists them")
    config: Any = timm.get_pretrained_cfg(name)
    options: dict[str, Any] = {"features_only": True}
    if config.fixed_input_size:
        options["img_size"] = image_size
    if weights:
        source = {"state_dict": shipped_weights(name) if weights == "shipped" else read_weights(name, weights)}
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=source, **options)
    if pretrained:
        network = _try_pretrained(name, config, options, hub)
        if network is not None:
            return network
        if name in SHIPPED:
            return _create(name, image_size, False, "shipped", hub)
    try:
        return timm.create_model(name, pretrained=False, **options)
    except (AttributeError, RuntimeError, TypeError) as error:
        raise ValueError(f"timm's {name!r} cannot serve as a backbone (no features_only): {error}") from error


def shipped_weights(name: str) -> dict[str, Tensor]:
    """The weights in the package; only of what a backbone uses, the classifier is left out.

    Raises:
        ValueError: none are shipped for this network.
    """
    if name not in SHIPPED:
        raise ValueError(f"no weights are shipped for {name}, only for {', '.join(SHIPPED)}")
    return load_file(SHIPPED[name])


def read_weights(name: str, path: str | Path) -> dict[str, Tensor]:
    """A timm state dict from a local file, checked against the whole network's names and shapes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a state dict, or not this network's; the message lists what differs.
    """
    state = read_state(path)
    with torch.device("meta"):
        expected = timm.create_model(name).state_dict()
    check_weights(state, shapes(expected), f"backbone weights {path} are not timm's {name}")
    return state


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a local file of weights.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"backbone weights {path}: no such file")
    state: Any
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            if zipfile.is_zipfile(path):
                check_stored(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors and torch raise a dozen types for a broken file
        raise ValueError(f"backbone weights {path}: not a readable state dict ({one_line(error)})") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"backbone weights {path}: expected a state dict (names to tensors)")
    check_tensors(state, f"backbone weights {path}")
    return state


def _of_student(path: str | Path | None) -> dict[str, Tensor]:
    """The backbone's weights of a student, by its file or the name of a shipped one; empty for any other file."""
    path = student_file(path or "")
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    prefix = "backbone."
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            return {name.removeprefix(prefix): file.get_tensor(name).float() for name in names}
    except (SafetensorError, OSError):
        return {}  # `read_weights` raises the error


def _try_pretrained(name: str, config: Any, options: dict[str, Any], hub: Hub) -> nn.Module | None:
    """The network with ImageNet weights, or None after a warning with the reason; never waits long for the hub."""
    try:
        cached = hub.cached(config)
        if cached:  # by file: by name, the hub client would retry for a minute when offline
            options = {**options, "pretrained_cfg_overlay": {"file": cached}}
        elif config.hf_hub_id:
            hub.reach(config.hf_hub_id)
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # the hub client's, the transport's or timm's: the remedy is the same
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        start = "the shipped weights" if name in SHIPPED else "scratch"
        logger.warning("no ImageNet weights for %s (%s): its backbone starts from %s", name, reason, start)
        return None
