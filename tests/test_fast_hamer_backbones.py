"""Fast-HaMeR's backbones are timm networks that compute what torchvision's do, from its weights."""

import pytest
import torch
import torchvision
from torch import nn

from fasthamer.runtime.fold import fold_backbone
from fasthamer.students import build_student
from fasthamer.students.fast_hamer import TRUNKS, fast_hamer_backbone, load_named, torchvision_names


def torchvision_model(name: str) -> nn.Module:
    return torchvision.models.get_model(TRUNKS[name].weights.split("_Weights")[0].lower(), weights=None)


@pytest.mark.parametrize("name", [name for name, trunk in TRUNKS.items() if trunk.weights])
def test_every_tensor_of_a_backbone_has_torchvisions_name_and_shape_and_its_norms_torchvisions_epsilon(name):
    with torch.device("meta"):
        backbone, reference = fast_hamer_backbone(name), torchvision_model(name)
    names = torchvision_names(backbone)
    ours = {names[key]: value.numel() for key, value in backbone.state_dict().items()}
    theirs = {
        key: value.numel()
        for key, value in reference.state_dict().items()
        if not key.startswith(("fc.", "classifier."))
    }
    assert ours == theirs
    eps = [{part.eps for part in net.modules() if isinstance(part, nn.BatchNorm2d)} for net in (backbone, reference)]
    assert eps[0] == eps[1]


@pytest.mark.parametrize("name", ["resnet50", "mobilenetv3_l", "efficientnetv2_m"])
def test_a_backbone_computes_what_torchvisions_does(name):
    torch.manual_seed(1)
    reference = torchvision_model(name).eval()
    with torch.no_grad():
        for part in reference.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_var.uniform_(0.5, 1.5)
                part.running_mean.normal_(std=0.02)
    backbone = fast_hamer_backbone(name, 64).eval()
    load_named(backbone, reference.state_dict(), torchvision_names(backbone), "torchvision")
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        tapped, last = backbone(image)
        if name == "resnet50":
            expected = nn.Sequential(*list(reference.children())[:-2])(image)
        else:
            expected = reference.features(image)
        if name == "efficientnetv2_m":
            expected = reference.avgpool(expected)
            folded = fold_backbone(backbone, image[:1])(image)[1]
            torch.testing.assert_close(folded, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
    assert tapped is last and last.shape[1] == backbone.channels
    torch.testing.assert_close(last, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_every_backbone_is_normalised_as_hamers_and_efficientnet_gives_one_token():
    with torch.device("meta"):
        assert fast_hamer_backbone("efficientnetv2_m").grid == (1, 1)
        assert fast_hamer_backbone("mobilevit_s").grid == (8, 8)
    grey = build_student("fast_hamer:mobilevit_s", "hamer", "tiny").normalise(torch.full((1, 3, 256, 256), 255.0))
    assert grey[0, :, 0, 0].tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])


def test_a_mistyped_backbone_is_answered_with_the_nearest():
    with pytest.raises(KeyError, match=r"Fast-HaMeR student.*'resnet5O'.*resnet50"):
        build_student("fast_hamer:resnet5O", "hamer")


def test_torchvisions_weights_come_from_a_file_or_torch_hubs_cache_and_never_from_the_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"fetch https://download\.pytorch\.org/models/mobilenet_v3_large-\w+\.pth"
    ):
        fast_hamer_backbone("mobilenetv3_l", weights="torchvision")
    with pytest.raises(ValueError, match="torchvision has no weights of mobilevit_s"):
        fast_hamer_backbone("mobilevit_s", weights="torchvision")
    reference = torchvision_model("mobilenetv3_l")
    url = torchvision.models.get_weight(TRUNKS["mobilenetv3_l"].weights).url
    cached = tmp_path / "hub" / "checkpoints" / url.rsplit("/", 1)[-1]
    cached.parent.mkdir(parents=True)
    torch.save(reference.state_dict(), cached)
    for how in ({"weights": "torchvision"}, {"pretrained": True}, {"weights": cached}):
        backbone = fast_hamer_backbone("mobilenetv3_l", 64, **how)
        assert torch.equal(backbone.network.conv_stem.weight, reference.features[0][0].weight)
    torch.save(torchvision_model("mobilenetv3_l").features.state_dict(), cached)
    with pytest.raises(ValueError, match=r"is not torchvision's mobilenetv3_l: .* missing features\.0\.0\.weight"):
        fast_hamer_backbone("mobilenetv3_l", 64, weights="torchvision")
