"""A small part of `orders_stress`, which goes over all traces on as many designs as asked for."""

import pytest

from tests.agreement import orders_stress


@pytest.mark.parametrize(
    "only",
    [
        "own gpt_dp2_tp2_pp2",
        "own moe_8",
        "own fuzz2",
        "own stg_llama_fsdp8",
        "own stg_gpt_dp2tp2pp2",
        "unaware fuzz3 ring_s4_a1 switch8 whole",
        "unaware fuzz4 ring_d2_s4_a1 sw4_ring2",
        "aware fuzz5 ring_s8_a4 ring8",
        "aware llm_dp2tp2pp2 direct_s4_a1 switch8 whole",
        "aware llm_dp8 ring_s4_a1 switch8 whole",
        "unaware stg_llama_fsdp8 ring_s4_a1 switch8",
        "unaware mem2",
    ],
)
def test_no_certificate_and_no_schedule_by_nodes_is_false(only):
    name, compiled = next(orders_stress.subjects(only), (only, None))
    if compiled is None:
        pytest.skip(f"{only}: no such trace without the reference data")
    found = orders_stress.stress(name, compiled, 48, seed=1)
    assert found.false == []
    assert found.designs == 48
