"""How the processes of a run find each other."""

import os
import socket

import jax

from metarun import config, errors
from metarun.hosts import guardian, placement
from metarun.hosts.placement import Placement
from metarun.hosts.processes import Processes

JOIN_SECONDS = 40  # that the processes have to find each other in
HEARTBEAT_SECONDS = 30  # without a sign of life, after which a process counts as dead


def join(settings: config.Hosts) -> Processes:
    """Return the processes of this run, after they have found each other. Call it before jax has devices.

    Raises:
      ConfigError: this process does not know its place.
      AcceleratorError: process 0 cannot listen at its address. Whoever does not find the others is aborted by the
        runtime, and its guardian says so.
    """
    place = placement.find_placement(settings, os.environ)
    if place is not None:
        place = complete(place)
    if place is None or place.count == 1:
        return Processes()
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from us
    # Else the service would be open to every network of the host.
    listening = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", str(place.coordinator))
    try:
        if place.index == 0:
            check_free(listening)
        jax.distributed.initialize(
            *(place.coordinator, place.count, place.index),
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
            coordinator_bind_address=listening,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise errors.AcceleratorError(
            f"the processes of the run cannot be joined: {str(error).splitlines()[0][:200]}",
            str(place),
            "choose a free port and an address of process 0's host for accelerator.hosts.coordinator; "
            "JAX_COORDINATOR_BIND_ADDRESS may name another address to listen at",
        ) from error
    guardian.note(joined=True)
    return Processes(place)


def check_free(address: str) -> None:
    """Raise OSError or ValueError if nobody can listen at an address: the runtime sometimes dies of that (SIGSEGV)."""
    host, _, port = address.rpartition(":")
    family, kind, protocol, _, place = socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(place)


def complete(place: Placement) -> Placement:
    """Fill in what the cluster says and the environment does not, as jax reads it.

    Raises:
      ConfigError: the cluster does not say it either.
    """
    if None not in (place.coordinator, place.count, place.index):
        return place
    from jax._src import clusters  # jax has no public way to ask

    try:
        found = clusters.ClusterEnv.auto_detect_unset_distributed_params(
            coordinator_address=place.coordinator,
            num_processes=place.count,
            process_id=place.index,
            local_device_ids=[0],
            cluster_detection_method=None,
            initialization_timeout=JOIN_SECONDS,
        )
    except Exception as error:  # whatever the metadata of a cluster come to
        raise errors.ConfigError(
            f"{place.cluster} does not say where its processes are: {error}",
            "accelerator.hosts",
            "give coordinator, count and index there; accelerator.hosts.count=1 trains alone",
        ) from error
    completed = Placement(*found[:3], cluster=None)
    placement.refuse_unknown_place(completed)
    return completed
