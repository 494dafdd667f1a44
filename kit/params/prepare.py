"""What a site's nodes shall be: ``params/prepare/NAME.yaml``, and what may be fetched: ``params/artifacts.yaml``.

A part that is left out is left alone.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kit.params.closed import Closed, Name, Port

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
AbsolutePath = Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/-]+$", max_length=255)]
Package = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$")]
Url = Annotated[str, Field(pattern=r"^(https?|file)://[^\s\"']+$")]


class Artifact(Closed):
    """A file that a preparation fetches. Without ``sha256`` it is never fetched: `kit artifacts record` prints one."""

    url: str
    sha256: Sha256 | None = None
    fingerprint: Annotated[str, Field(pattern=r"^[0-9A-F]{40}$")] | None = None
    source: str = ""


class Artifacts(Closed):
    """``{mirror}`` in a URL stands for the mirror that the preparation names."""

    mirrors: dict[Name, Url]
    artifacts: dict[Name, Artifact]


class DriverWanted(Closed):
    """The eRDMA kernel driver. ``auto``: on Debian MLNX_OFED's sources and then the installer, elsewhere the installer.

    ``installer`` names the artifact of the installer, ``version`` the driver that `modinfo` must show (None: any).
    ``trust_env_setup`` lets the vendor's env_setup.sh run, which fetches by itself what no checksum covers.
    """

    method: Literal["auto", "installer", "env_setup_egs", "env_setup_url", "ofed_debian"] = "auto"
    installer: Name = "erdma_installer-1.5.7"
    version: str | None = None
    trust_env_setup: bool = False
    force_mad: bool = False
    cm_no_bound_if: bool = False


class ModeWanted(Closed):
    """The driver's mode. ``ports_base`` is the first of the 16 TCP ports that compat mode takes for itself."""

    mode: Literal["standard", "compat"]
    ports_base: Annotated[int, Field(ge=1024, le=65520)] = 30608


class UserSpaceWanted(Closed):
    """Packages, and with ``source`` the vendor's apt source. ``suite`` None: the node's own codename."""

    packages: list[Package] = ["eadm", "libibverbs1", "ibverbs-providers", "ibverbs-utils", "librdmacm1", "perftest"]
    source: bool = True
    path: str = "/apt/ubuntu"
    suite: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9./-]*$")] | None = None
    key: Name = "erdma-apt-key"


class LimitsWanted(Closed):
    """Locked memory of new sessions; RDMA pins what it registers."""

    memlock: Literal["unlimited"] = "unlimited"


class NetworkWanted(Closed):
    """``ports`` must be reachable from node to node, tried by connecting; the two clocks may differ by so much."""

    mtu_bytes: Annotated[int, Field(ge=1280, le=9216)] | None = None
    ports: list[Port] = []
    max_clock_skew_s: Annotated[float, Field(gt=0)] = 1.0


class StorageWanted(Closed):
    """The model folder by NFS. ``check_file`` is a file below it whose digest must be the same on both nodes."""

    server: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:-]+$")]
    export: Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/-]*$", max_length=255)]
    path: AbsolutePath = "/data/models"
    options: Annotated[str, Field(pattern=r"^[a-z0-9_=.,:-]+$")] = "ro,nfsvers=4.2,hard,timeo=600"
    check_file: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-][A-Za-z0-9._/-]*$")] | None = None


class ContainerWanted(Closed):
    """The serving container, detached, by an image's digest; it gets every file of /dev/infiniband.

    ``requirements`` is a file of this project that pins Python packages by their hashes; torch is never replaced.
    """

    runtime: Literal["nerdctl", "docker", "podman"]
    image: Annotated[str, Field(pattern=r"^[a-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}$")]
    name: Name = "erdma-kit"
    gpus: bool = True
    models: AbsolutePath | None = "/data/models"
    shm_gib: Annotated[int, Field(ge=1, le=1024)] = 16
    requirements: str | None = None


class ExporterWanted(Closed):
    """erdma-exporter as a systemd unit of a binary that is on the node, or as a container."""

    kind: Literal["unit", "container"] = "unit"
    binary: AbsolutePath = "/usr/local/bin/erdma-exporter"
    image: Annotated[str, Field(pattern=r"^[a-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}$")] | None = None
    runtime: Literal["nerdctl", "docker", "podman"] = "docker"
    port: Port = 9101

    @model_validator(mode="after")
    def _image_given(self) -> ExporterWanted:
        if self.kind == "container" and self.image is None:
            raise ValueError("a container needs an image with its digest")
        return self


class SetupParams(Closed):
    """Parameters of ``01_driver_setup``. ``preparation`` empty: that of the site's name; ``apply`` false only plans."""

    preparation: str = ""
    apply: bool = False


class Prepare(Closed):
    """What the nodes of a site shall be. ``mirror`` is a name of params/artifacts.yaml or a URL of one's own."""

    name: Name
    title: str = ""
    mirror: str = "public"
    limits: LimitsWanted | None = None
    network: NetworkWanted | None = None
    driver: DriverWanted | None = None
    user_space: UserSpaceWanted | None = None
    mode: ModeWanted | None = None
    storage: StorageWanted | None = None
    container: ContainerWanted | None = None
    exporter: ExporterWanted | None = None
