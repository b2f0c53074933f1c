"""benchmarks/against_released.py runs a checkout of the released code beside ours; here, a stand-in for it."""

import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / 'benchmarks'
SMALL = ['--field=model.channels=32', '--field=model.channel_mult=(1,1,1,1)', '--field=model.num_res_blocks=1']
STAND_IN = """
import types
import torch
import torch_unet
from visdom import Visdom
viz = Visdom(port=8097)
NAMES = (
    'image_size num_channels num_res_blocks num_heads num_heads_upsample num_head_channels attention_resolutions '
    'channel_mult dropout class_cond use_scale_shift_norm resblock_updown use_new_attention_order learn_sigma '
    'diffusion_steps noise_schedule timestep_respacing'
)
def model_and_diffusion_defaults():
    return dict.fromkeys(NAMES.split())
class Diffusion:
    def p_sample_loop_progressive(self, model, shape, time=1000, noise=None, clip_denoised=True, model_kwargs=None):
        x = noise
        for step in reversed(range(time)):
            print('sampling step', step)
            viz.image(x)
            with torch.no_grad():
                x = x[:, -1:] - model(torch.cat([noise[:, :-1], x[:, -1:]], dim=1), torch.tensor([step]))[:, :1]
            yield {'sample': x}
    def p_sample_loop_known(self, model, shape, img, clip_denoised=True, model_kwargs=None):
        *_, last = self.p_sample_loop_progressive(model, shape, noise=img)
        return last['sample'], img, img
def create_model_and_diffusion(**given):
    numbers = lambda text: [int(number) for number in text.split(',')]
    model = types.SimpleNamespace(
        channels=given['num_channels'], patch_size=1, num_groups=32, num_heads=given['num_heads'],
        channel_mult=numbers(given['channel_mult']), num_res_blocks=given['num_res_blocks'],
        use_scale_shift_norm=given['use_scale_shift_norm'],
        attention_resolutions=[given['image_size'] // n for n in numbers(given['attention_resolutions'])],
    )
    return torch_unet.UNet(model, 5, 2), Diffusion(), None, None
"""


def run(folder, *arguments):
    command = [sys.executable, BENCHMARKS / 'against_released.py', f'--released={folder}', *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def checkout(folder, code):
    (folder / 'guided_diffusion').mkdir()
    (folder / 'guided_diffusion' / '__init__.py').touch()
    (folder / 'guided_diffusion' / 'script_util.py').write_text(code)
    return folder


def test_a_folder_that_is_no_checkout_is_told_in_one_line(tmp_path):
    ended = run(tmp_path)
    assert ended.returncode == 2 and ended.stdout == ''
    (line,) = ended.stderr.splitlines()
    assert 'has no folder guided_diffusion' in line


def test_both_samplers_run_with_the_same_weights_and_the_table_has_a_row_for_each(tmp_path):
    pytest.importorskip('torch')
    ended = run(checkout(tmp_path, STAND_IN), *SMALL, '--rounds=1', '--evaluations=4,1000')
    assert ended.returncode == 0, ended.stderr
    first, *table = ended.stdout.splitlines()
    assert 'of their size apart' in first
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in table]
    assert [row[:2] for row in rows[2:]] == [['released, batch 1', '1000'], ['ours', '4'], ['ours', '1000']]
    theirs, short, whole = (float(row[4]) for row in rows[2:])
    # The image is fed four times there: a little more in the first convolution. Elementwise work counts only here.
    assert 0.9 < theirs / whole < 1.1 and short == pytest.approx(whole / 250, rel=0.02)


@pytest.mark.parametrize(
    ('code', 'fields', 'said'),
    [
        ('import nothing_of_that_name', SMALL, 'cannot be imported (ModuleNotFoundError'),
        ('model_and_diffusion_defaults = dict', SMALL, 'has no function create_model_and_diffusion'),
        (STAND_IN.replace('p_sample_loop_known', 'other'), SMALL, 'its diffusion has no p_sample_loop_known'),
        (STAND_IN, ['--field=data.image_size=64'], 'config.data.image_size=64: the released loop runs 128 only'),
    ],
)
def test_what_is_not_as_expected_is_told_in_one_line(code, fields, said, tmp_path):
    pytest.importorskip('torch')
    ended = run(checkout(tmp_path, code), *fields, '--rounds=1', '--evaluations=4')
    assert ended.returncode == 2 and ended.stdout == ''
    (line,) = ended.stderr.splitlines()
    assert said in line
