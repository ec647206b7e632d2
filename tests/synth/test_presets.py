"""Presets against published counts of parameters, and operations against closed forms."""

import json

import pytest

import perfmodel as pm
from perfmodel.errors import InputError
from perfmodel.synth.configuration import configuration
from perfmodel.synth.presets import names, preset

PARAMETERS = {
    "gpt-3-125m": 125_226_240,
    "gpt-3-350m": 355_871_744,
    "gpt-3-760m": 760_300_032,
    "gpt-3-1.3b": 1_315_723_264,
    "gpt-3-2.7b": 2_651_553_280,
    "gpt-3-5b": 5_051_228_160,
    "gpt-3-6.7b": 6_658_404_352,
    "gpt-3-13b": 12_853_386_240,
    "gpt-3-20b": 20_262_014_976,
    "gpt-3-175b": 174_604_259_328,
    "megatron-22b": 22_074_273_792,
    "megatron-175b": 174_615_846_912,
    "megatron-530b": 529_600_819_200,
    "megatron-1t": 1_008_038_758_400,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_620_634_112,
    "mixtral-8x22b-v0.3": 140_630_071_296,
    "qwen3-8b": 8_190_735_360,
    "qwen3-32b": 32_762_123_264,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
    "deepseek-v3": 671_026_419_200,
    "nemotron-3-8b": 8_540_135_424,
    "nemotron-3-22b": 21_266_116_608,
    "nemotron-4-15b": 15_628_775_424,
    "nemotron-4-340b": 341_029_195_776,
    "gemma-2-9b": 9_242_164_736,
    "gemma-2-27b": 27_227_718_144,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
}
"""What the reports and model cards say, to the digit where they print it."""

ACTIVE = {  # billions, with the input embedding
    "mixtral-8x7b": 12.880,
    "mixtral-8x22b": 39.15,
    "qwen3-30b-a3b": 3.353,
    "qwen3-235b-a22b": 22.19,
    "deepseek-v3": 37.55,
    "gpt-oss-20b": 4.187,
    "gpt-oss-120b": 5.712,
}


def test_every_preset_has_the_published_number_of_parameters():
    assert {name: preset(name).parameters for name in names()} == PARAMETERS


def test_mixtures_have_the_published_number_of_active_parameters():
    for name, billions in ACTIVE.items():
        assert preset(name).active_parameters / 1e9 == pytest.approx(billions, abs=0.006)


def test_a_workload_says_its_parameters_whatever_it_is_spread_over():
    work = pm.synth.training("llama-3-70b", tensor=8, pipeline=4, micro_batches=4)
    assert work.parameters == 70_553_706_496


@pytest.mark.parametrize("name", ["gpt-3-175b", "megatron-22b", "megatron-530b", "megatron-1t"])
def test_gpt_has_the_operations_of_narayanan_equation_3(name):
    m, s, batch = preset(name), 2048, 12
    per_layer = batch * s * m.layers * m.hidden**2
    scores, logits = s / m.hidden, m.vocabulary / (m.layers * m.hidden)
    plain = pm.synth.training(name, global_batch=batch)
    assert plain.flops == pytest.approx(72 * per_layer * (1 + scores / 6 + logits / 12), rel=1e-12)
    assert plain.hardware_flops == plain.flops
    again = pm.synth.training(name, global_batch=batch, recompute="full")
    expected = 96 * per_layer * (1 + scores / 6 + logits / 16)
    assert again.flops == plain.flops
    assert again.hardware_flops == pytest.approx(expected, rel=1e-12)
    selective = pm.synth.training(name, global_batch=batch, recompute="selective")
    more = selective.hardware_flops - selective.flops
    assert more == pytest.approx(4 * m.layers * batch * s**2 * m.hidden, rel=1e-9)


def test_korthikanti_table_5_has_these_operations_a_step():
    for name, batch, flops in (
        ("megatron-22b", 4, 1.143560812e15),
        ("megatron-175b", 64, 1.410915311e17),
        ("megatron-530b", 280, 1.852230416e18),
        ("megatron-1t", 512, 6.425875806e18),
    ):
        assert pm.synth.training(name, global_batch=batch).flops == pytest.approx(flops, rel=1e-9)


def test_llama_and_mixtral_have_the_operations_of_their_closed_forms():
    # 6 (attention + mlp + head) + causal attention 6 L a d s, a token
    llama = pm.synth.training("llama-3-70b", sequence=8192)
    layer = 8192 * 128 * (2 * 64 + 2 * 8) + 3 * 8192 * 28_672
    token = 6 * (80 * layer + 8192 * 128_256) + 6 * 80 * 64 * 128 * 8192
    assert llama.flops == pytest.approx(8192 * token, rel=1e-12)
    assert token / 1e9 == pytest.approx(449.2, abs=0.05)  # NeMo's count
    mixtral = pm.synth.training("mixtral-8x7b", sequence=4096)
    layer = 4096 * 128 * (2 * 32 + 2 * 8) + 2 * 3 * 4096 * 14_336 + 8 * 4096
    token = 6 * (32 * layer + 4096 * 32_000) + 6 * 32 * 32 * 128 * 4096
    assert mixtral.flops == pytest.approx(4096 * token, rel=1e-12)


def test_a_window_leaves_out_what_lies_before_it():
    # the area below a line that rises to w and stays there, a token counting half of itself
    m = pm.synth.Sizes(layers=1, hidden=8, heads=2, window=4, window_every=1)
    assert m.attended(0, 16, causal=True) * 16 == 4 * 4 / 2 + 12 * 4
    assert m.attended(0, 4, causal=True) == 2  # no shorter than the sequence: as without a window
    assert m.attended(0, 16, causal=False) == 4


def test_presets_that_do_not_exist_are_answered_with_those_that_look_alike():
    with pytest.raises(InputError, match="llama-3-70b"):
        pm.synth.training("lama-3-70b")
    with pytest.raises(InputError, match="'layer' is no size"):
        pm.synth.training({"layer": 2, "hidden": 8, "heads": 2})
    with pytest.raises(InputError, match="'heads' is missing"):
        pm.synth.training({"layers": 2, "hidden": 8})


CONFIGURATIONS = {
    "llama-3-8b": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
        "max_position_embeddings": 8192,
        "attention_bias": False,
        "mlp_bias": False,
    },
    "qwen3-235b-a22b": {
        "model_type": "qwen3_moe",
        "head_dim": 128,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "moe_intermediate_size": 1536,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 94,
        "num_attention_heads": 64,
        "num_key_value_heads": 4,
        "vocab_size": 151936,
        "tie_word_embeddings": False,
        "max_position_embeddings": 40960,
        "attention_bias": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "sliding_window": None,
    },
    "mixtral-8x7b": {
        "model_type": "mixtral",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "tie_word_embeddings": False,
        "max_position_embeddings": 32768,
    },
    "deepseek-v3": {
        "model_type": "deepseek_v3",
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "first_k_dense_replace": 3,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "vocab_size": 129280,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "max_position_embeddings": 163840,
        "num_nextn_predict_layers": 1,
    },
    "gpt-oss-120b": {
        "model_type": "gpt_oss",
        "hidden_size": 2880,
        "head_dim": 64,
        "intermediate_size": 2880,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "num_hidden_layers": 36,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "sliding_window": 128,
        "vocab_size": 201088,
        "tie_word_embeddings": False,
        "attention_bias": True,
        "max_position_embeddings": 131072,
    },
    "gpt-3-125m": {
        "model_type": "gpt2",
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 12,
        "n_positions": 2048,
        "vocab_size": 50257,
    },
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_file_gives_the_preset_of_the_same_model(name, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(CONFIGURATIONS[name]))
    found = configuration(tmp_path)
    assert found.parameters == PARAMETERS[name]
    assert found.active_parameters == preset(name).active_parameters
    work = pm.synth.training(file, sequence=1024)
    assert work.flops == pm.synth.training(name, sequence=1024).flops


def test_configuration_files_that_say_too_little_are_refused(tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"model_type": "mamba"}')
    with pytest.raises(InputError, match="model_type is 'mamba'"):
        configuration(file)
    file.write_text('{"model_type": "llama", "hidden_size": 8}')
    with pytest.raises(InputError, match="num_hidden_layers is missing"):
        configuration(file)
    file.write_text('{"model_type": "llama", "hidden_size": "8"}')
    with pytest.raises(InputError, match="hidden_size or n_embd is '8'"):
        configuration(file)
    with pytest.raises(InputError, match="cannot be read"):
        configuration(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": ["llama"]}, "model_type"),
        ({"max_position_embeddings": "long"}, "max_position_embeddings"),
        ({"max_position_embeddings": 1e400}, "max_position_embeddings"),
        ({"attention_bias": "yes"}, "attention_bias"),
        ({"hidden_size": 2**80}, "hidden_size"),
        ({"num_attention_heads": 0}, "heads"),
    ],
)
def test_a_configuration_with_a_wrong_value_is_one_clear_error(tmp_path, change, said):
    sound = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 100}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(sound | {"num_hidden_layers": 1} | change))
    with pytest.raises(InputError, match=said):
        configuration(file)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{", "\ud800".encode("utf-8", "surrogatepass"), "7"]
)
def test_what_is_no_configuration_is_one_clear_error(tmp_path, text):
    file = tmp_path / "config.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"config\.json"):
        configuration(file)
