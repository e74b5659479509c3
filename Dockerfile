# docs/docker.md. TORCH is an index of https://download.pytorch.org/whl: cpu, or cu126 and others for NVIDIA's GPUs,
# whose CUDA libraries come with torch; the host needs a driver and the NVIDIA Container Toolkit.
FROM python:3.12-slim

ARG TORCH=cpu
RUN pip install --no-cache-dir 'torch>=2.12,<2.16' 'torchvision>=0.27,<0.30' --index-url https://download.pytorch.org/whl/${TORCH}

WORKDIR /source
COPY setup.py pyproject.toml README.md LICENSE ./
COPY fasthamer fasthamer
COPY configs configs
COPY distill distill
COPY students students
COPY teachers teachers
COPY tools tools
RUN pip install --no-cache-dir '.[data,mesh,video,web]'

# Any user may run it (docker run --user), so caches lie where everyone can write.
ENV XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/matplotlib
RUN useradd --create-home --uid 1000 fasthamer
USER 1000
WORKDIR /data
ENTRYPOINT ["fasthamer"]
CMD ["--help"]
