"""The camera of `rpc` for tensors: where a loss has to be differentiated through it, or points lie on a GPU.

Derivatives come from autograd. In float64 the image positions are those of `rpc` to 1e-8 px; float32 holds degrees to
about a metre only, so tensors of it are refused.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cityweave.errors import DataError
from cityweave.rpc import RPC

STEPS = 20
CLOSE_PX = 1e-7


def _terms(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """The 20 monomials of RPC00B, last axis; in the order of `rpc`."""
    # fmt: off
    return torch.stack([
        torch.ones_like(x), x, y, z, x * y, x * z, y * z, x * x, y * y, z * z,
        x * y * z, x**3, x * y * y, x * z * z, x * x * y, y**3, y * z * z, x * x * z, y * y * z, z**3,
    ], dim=-1)
    # fmt: on


def project(rpc: RPC, lon: Tensor, lat: Tensor, height_m: Tensor) -> tuple[Tensor, Tensor]:
    """Ground (degrees, metres above the ellipsoid) to image (u, v)."""
    lon, lat, height_m = torch.broadcast_tensors(lon, lat, height_m)
    if {lon.dtype, lat.dtype, height_m.dtype} != {torch.float64}:
        raise DataError(f"an RPC needs float64 tensors, found {lon.dtype}, {lat.dtype} and {height_m.dtype}")
    terms = _terms(
        (lon - rpc.long_off) / rpc.long_scale,
        (lat - rpc.lat_off) / rpc.lat_scale,
        (height_m - rpc.height_off) / rpc.height_scale,
    )

    def ratio(numerator: tuple[float, ...], denominator: tuple[float, ...]) -> Tensor:
        return (terms @ terms.new_tensor(numerator)) / (terms @ terms.new_tensor(denominator))

    u = ratio(rpc.samp_num, rpc.samp_den) * rpc.samp_scale + (rpc.samp_off + 0.5)
    v = ratio(rpc.line_num, rpc.line_den) * rpc.line_scale + (rpc.line_off + 0.5)
    if (correction := rpc.correction) is None:
        return u, v
    a, b, c, d = correction.affine
    x, y = u - correction.about_px[0], v - correction.about_px[1]
    return u + (correction.du_px + a * x + b * y), v + (correction.dv_px + c * x + d * y)


def localise(rpc: RPC, u: Tensor, v: Tensor, height_m: Tensor) -> tuple[Tensor, Tensor]:
    """Image (u, v) at a height to longitude and latitude, by Newton steps; carries no gradient."""
    u, v, height_m = (value.detach() for value in torch.broadcast_tensors(u, v, height_m))
    lon, lat = torch.full_like(height_m, rpc.long_off), torch.full_like(height_m, rpc.lat_off)
    for _ in range(STEPS):
        with torch.enable_grad():
            lon, lat = lon.requires_grad_(), lat.requires_grad_()
            u0, v0 = project(rpc, lon, lat, height_m)
            u_lon, u_lat = torch.autograd.grad(u0.sum(), (lon, lat), retain_graph=True)
            v_lon, v_lat = torch.autograd.grad(v0.sum(), (lon, lat))
        du, dv = u - u0.detach(), v - v0.detach()
        determinant = u_lon * v_lat - u_lat * v_lon
        lon = lon.detach() + (v_lat * du - u_lat * dv) / determinant
        lat = lat.detach() + (u_lon * dv - v_lon * du) / determinant
        if not bool((torch.hypot(du, dv) > CLOSE_PX).any()):
            break
    return lon, lat
