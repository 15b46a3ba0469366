"""Loops, arrays and traffic of a program's text, counted by hand."""

import jax
import jax.numpy as jnp

from albert_jax.devices.collectives import parse_collectives
from albert_jax.devices.mesh import make_mesh
from albert_jax.devices.program_text import arrays_of, count_runs, parse_computations
from albert_jax.devices.traffic import bytes_between_matmuls

# 3 micro-batches of 4 layers. A layer is a product, a pass that keeps its result in a stack, and a
# fusion that reads a slice of another; a copy goes to a TPU's chip.
PROGRAM = """HloModule step

%take (p0: f32[4,1000], p1: s32[]) -> f32[1000] {
  %p0 = f32[4,1000]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,1000]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={1,1000}
  ROOT %bitcast = f32[1000]{0} bitcast(%slice)
}

%keep (q0: f32[4,1000], q1: f32[1000], q2: s32[]) -> f32[4,1000] {
  %q0 = f32[4,1000]{1,0} parameter(0)
  %q1 = f32[1000]{0} parameter(1)
  %q2 = s32[] parameter(2)
  %row = f32[1,1000]{1,0} bitcast(%q1)
  %none = s32[] constant(0)
  ROOT %update = f32[4,1000]{1,0} dynamic-update-slice(%q0, %row, %q2, %none)
}

%layer (state: (s32[], f32[1000], f32[4,1000])) -> (s32[], f32[1000], f32[4,1000]) {
  %state = (s32[], f32[1000]{0}, f32[4,1000]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[1000]{0} get-tuple-element(%state), index=1
  %stack = f32[4,1000]{1,0} get-tuple-element(%state), index=2
  %taken = f32[1000]{0} fusion(%stack, %i), kind=kLoop, calls=%take
  %product = f32[1000]{0} dot(%taken, %x)
  %kept = f32[4,1000]{1,0} fusion(%stack, %product, %i), kind=kLoop, calls=%keep
  %sum = f32[1000]{0} all-reduce(%product), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %next = (s32[], f32[1000]{0}, f32[4,1000]{1,0}) tuple(%i, %sum, %kept)
}

%more (at: (s32[], f32[1000], f32[4,1000])) -> pred[] {
  %at = (s32[], f32[1000]{0}, f32[4,1000]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%at), index=0
  %end = s32[]{:T(128)} constant(4)
  ROOT %less = pred[] compare(%j, %end), direction=LT
}

%micro (m: (s32[], f32[1000], f32[4,1000])) -> (s32[], f32[1000], f32[4,1000]) {
  %m = (s32[], f32[1000]{0}, f32[4,1000]{1,0}) parameter(0)
  ROOT %layers = (s32[], f32[1000]{0}, f32[4,1000]{1,0}) while(%m), condition=%more, body=%layer
}

ENTRY %main (input: (s32[], f32[1000], f32[4,1000])) -> f32[1000] {
  %input = (s32[], f32[1000]{0}, f32[4,1000]{1,0}) parameter(0)
  %all = (s32[], f32[1000]{0}, f32[4,1000]{1,0}) while(%input), condition=%more, body=%micro, \
backend_config={"known_trip_count":{"n":"3"}}
  %y = f32[1000]{0} get-tuple-element(%all), index=1
  %near = (f32[1000]{0}, f32[1000]{0:T(1024)S(1)}, u32[]{:S(2)}) copy-start(%y)
  %there = f32[1000]{0:T(1024)S(1)} copy-done(%near)
  ROOT %out = f32[1000]{0} add(%there, %y)
}
"""


def test_bodies_of_loops_run_as_often_as_the_text_says() -> None:
    runs = count_runs(parse_computations(PROGRAM))
    assert (runs["main"], runs["micro"], runs["layer"]) == (1, 3, 12)
    assert runs["take"] == 12
    assert [a[:2] for a in arrays_of("(f32[2,3]{1,0}, bf16[4]{0:T(128)S(1)}, pred[])")] == [
        (32, 6),
        (16, 4),
        (8, 1),
    ]


def test_passes_move_slices_and_nothing_that_stays_on_the_chip() -> None:
    row = 4 * 1000
    taken, kept = row + 4 + row, row + 4 + row  # with the number of the slice
    add = row + row  # of one operand, the other is on the chip
    conditions = (3 + 12) * (4 + 4 + 1)  # two numbers in, a truth value out
    assert bytes_between_matmuls(PROGRAM) == 12 * (taken + kept) + add + conditions


def test_collectives_have_their_number_their_group_and_their_hosts() -> None:
    (found,) = parse_collectives(PROGRAM, make_mesh(fsdp=4))
    assert (found.kind, found.axes, found.in_loop) == ("all-reduce", ("fsdp",), True)
    assert (found.bytes, found.times, found.bytes_per_step) == (4000, 12, 48_000)
    assert (found.devices, found.parts) == (4, 1)


def test_the_compiler_s_own_text_is_read() -> None:
    def layers(x: jax.Array) -> jax.Array:
        def layer(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return jnp.roll(jnp.tanh(x) + x, 1), None

        return jax.lax.scan(layer, x, length=7)[0]

    text = jax.jit(layers).lower(jnp.ones(2**16)).compile().as_text()
    size = 4 * 2**16
    assert 14 * size <= bytes_between_matmuls(text) <= 4 * 14 * size
