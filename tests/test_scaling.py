"""docs/scaling.md says what its script computes, and the script's arithmetic is the one the page describes."""

import json
import pathlib
import runpy

import jax
import jax.numpy as jnp
import pytest

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / 'benchmarks' / 'scaling.py'))
MEASURED = json.loads((ROOT / 'benchmarks' / 'scaling.json').read_text())
V5E, H100, STEP = SCRIPT['V5E'], SCRIPT['H100'], SCRIPT['step']
POD = MEASURED['configs/lidc.py:pod']


def test_the_page_holds_the_tables_that_the_script_computes():
    page = (ROOT / 'docs' / 'scaling.md').read_text()
    assert SCRIPT['filled'](page, SCRIPT['tables'](MEASURED)) == page


def test_a_page_without_a_marker_is_refused():
    with pytest.raises(ValueError, match='masks'):
        SCRIPT['filled']('# nothing\n', {'masks': '| |'})


def test_one_chip_waits_for_no_link_and_a_step_is_its_terms():
    step = STEP(V5E, POD, 1, False)
    assert step.links == 0
    flops = POD['train']['flops'][0] * step.parts + POD['train']['flops'][1] * POD['batch']
    assert step.compute == pytest.approx(flops / (197e12 * 0.79))
    assert step.seconds == max(step.compute, step.memory)


def test_the_batch_is_taken_in_equal_parts_that_fit():
    for chip in (V5E, H100):
        for chips in (1, 8, 64, 512):
            images, parts = POD['batch'] // chips, STEP(chip, POD, chips, False).parts
            assert images % parts == 0
            assert images // parts * POD['train']['residuals'][1] < chip.capacity
    with pytest.raises(ValueError, match='does not divide'):
        STEP(V5E, POD, 3, False)


def test_links_carry_one_all_reduce_or_three_passes():
    gradient = 4 * POD['params']
    assert STEP(H100, POD, 8, False).links == pytest.approx(2 * gradient * 7 / 8 / (450e9 * 0.8))
    assert STEP(H100, POD, 8, True).links == pytest.approx(3 * gradient * 7 / 8 / (450e9 * 0.8))
    # Two pods: inside each, then each chip's 256th between them.
    inside, between = 2 * gradient * 255 / 256 / 200e9, gradient / 256 / 3.125e9
    assert STEP(V5E, POD, 512, False).links == pytest.approx((inside + between) / 0.8)


def test_fsdp_moves_less_state_the_more_chips():
    spared = [STEP(V5E, POD, n, False).memory - STEP(V5E, POD, n, True).memory for n in (64, 512)]
    assert spared[1] > 0
    per_chip = 36 * POD['params'] * 511 / 512 - 8 * POD['params']
    assert spared[1] == pytest.approx(per_chip / (819e9 * 0.9))


def test_masks_cost_in_proportion_to_their_evaluations():
    slow, _ = SCRIPT['mask_seconds'](H100, POD, 1000)
    fast, binds = SCRIPT['mask_seconds'](H100, POD, 8)
    assert slow == pytest.approx(125 * fast) and binds in ('compute', 'HBM')


def test_bytes_are_those_of_products_and_reductions(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    import scaling_pieces

    @jax.jit
    def function(x, w):
        return jnp.sum(jax.nn.relu(x @ w) * 2.0)

    x, w = jax.ShapeDtypeStruct((4, 8), jnp.float32), jax.ShapeDtypeStruct((8, 16), jnp.float32)
    product, reduced = 4 * (4 * 8 + 8 * 16 + 4 * 16), 4 * 4 * 16
    assert scaling_pieces.moved_bytes(jax.make_jaxpr(function)(x, w).jaxpr) == product + reduced
    looped = jax.make_jaxpr(lambda x: jax.lax.fori_loop(0, 3, lambda _, y: y @ y, x))(jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match='loop'):
        scaling_pieces.moved_bytes(looped.jaxpr)
