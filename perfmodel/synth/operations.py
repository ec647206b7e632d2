"""Operations of a training step over all ranks: the model's, and those that the hardware does on top.

Model FLOP of a step of B sequences of s tokens: B s times (6 N + 3 x attention), N weights of products that a token
goes through (experts: those it visits, and the router; the head, not the embedding). For GPT without regard to the mask
that is 72 B s L h^2 (1 + s / 6 h + V / 12 L h), with full recomputation 96 B s L h^2 (1 + s / 6 h + V / 16 L h)
(Narayanan et al. 2021, arXiv:2104.04473, equation 3). Model FLOP utilization counts the former, hardware FLOP
utilization the latter (Chowdhery et al. 2022, arXiv:2204.02311, appendix B; Korthikanti et al. 2022, section 6).
"""

from __future__ import annotations

from perfmodel.synth.settings import Settings


def step_flops(s: Settings, *, again: bool = False) -> float:
    """FLOP of a step over all ranks: forward and backward of the model, and what is computed again if asked for.

    Attention counts half of its scores where its kernel minds the mask ("flash"), all of them where it does not.
    """
    m, causal = s.model, s.attention == "flash"
    total = m.token_flops(s.sequence, causal=causal)
    if again:
        for layers in s.layers_of_places:
            whole = s.whole_layers(len(layers))
            for k, n in enumerate(layers):
                core = m.core_flops(n, s.sequence, causal=causal)
                if k < whole:
                    total += 2 * m.layer_products(n) + core
                    continue
                total += core * ("attention" in s.recomputed)
                total += 2 * m.up_products(n) * ("mlp" in s.recomputed)
                total += 2 * m.alternate_products(n) * ("alternate" in s.recomputed)
    return total * s.sequences * s.sequence
