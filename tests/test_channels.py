"""Four channels through the whole program: training, pictures, sampling, metrics, report, weights in and out."""

import io
import json

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

from ambdiff import convert, evaluate, methods, train
from ambdiff.config import default
from ambdiff.data.ms_mri import simulated
from ambdiff.released import files
from ambdiff.runtime import checkpoint


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A short run on simulated MRI, trained and evaluated: (config, workdir, what evaluate returned)."""
    folder = tmp_path_factory.mktemp('channels')
    whole = simulated.open_split
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated, 'open_split', lambda *arguments: whole(*arguments, 12))
        fields = {'builder': 'ms_mri_simulated', 'build_dir': str(folder), 'channels': 4, 'num_raters': 2}
        fields |= {'image_size': 64, 'upright': True}
        config = tiny.config('', **{f'data.{name}': value for name, value in fields.items()})
        config.model.patch_size, config.sample.symmetries = 8, False
        config.train.sample_every, config.train.sample_images = 12, 3
        assert train.train(config, folder / 'work')
        return config, folder / 'work', evaluate.evaluate(config, folder / 'work')


def test_it_trains_and_is_evaluated_beside_the_floor_of_the_true_distribution(run):
    _, workdir, result = run
    written = json.loads((workdir / 'evaluation' / 'metrics.json').read_text())
    assert written['num_images'] == result['num_images'] > 0
    finite = {key for key, value in written['metrics'].items() if value is not None}
    assert finite == set(written['metrics']) - set(written['undefined'])
    baselines = written['baselines']
    assert baselines['raters_resampled']['ged'] < baselines['fresh_raters']['ged'] < baselines['other_patients']['ged']
    with np.load(workdir / 'evaluation' / 'masks.npz') as saved:
        assert saved['raters'].shape == (result['num_images'], 2, 64, 8)


def test_pictures_and_report_show_every_channel_and_say_that_all_is_simulated(run):
    _, workdir, _ = run
    picture = Image.open(io.BytesIO((workdir / 'samples' / 'step_00000012.png').read_bytes()))
    tile = 2 * 64 + 2
    assert picture.size == ((4 + 2 + 4) * tile, 3 * tile)  # channels, raters, samples
    channels = np.asarray(picture)[:128, : 4 * tile].reshape(128, 4, tile, 3)[:, :, :128]
    assert len({channels[:, c].tobytes() for c in range(4)}) == 4
    page = (workdir / 'evaluation' / 'report.html').read_text()
    card = page[page.index('id="case-') :]
    card = card[: card.index('</article>')]
    assert card.count('aria-label="Whole channel') == 4
    assert 'Simulated: the images and the raters are computed' in page
    assert 'Raters, asked anew' in page


def test_weights_of_four_channels_are_packed_and_read_again(run, tmp_path):
    config, workdir, _ = run
    convert.pack_checkpoint(str(workdir), config, str(tmp_path / 'weights.safetensors'))
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    weights, step = checkpoint.load_weights(str(tmp_path / 'weights.safetensors'), config, where)
    assert step == 12
    first = weights.params['unet']['input_blocks_0_0']['kernel']
    assert first.shape[2] == 8 * 8 * (4 + 1)  # patches of four sequences and x_t


def test_a_released_network_of_four_sequences_goes_in_and_out_unchanged(tmp_path):
    """Its five input channels are the four sequences and x_t: nothing to fold, unlike the grey image's copies."""
    config = default()
    config.data.image_size, config.data.channels = 8, 4
    config.model.channels, config.model.channel_mult, config.model.num_res_blocks = 32, (1,), 1
    config.model.attention_resolutions = ()
    config.method.encoders = 'none'
    method = methods.create(config)
    batch = {'image': jax.ShapeDtypeStruct((1, 8, 8, 4), np.float32)}
    abstract = jax.eval_shape(method.init, jax.random.key(0), batch)[0]['unet']
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), abstract)
    state_dict = convert.unet_to_torch({'params': drawn})
    files.write_state_dict(tmp_path / 'released.safetensors', state_dict)
    convert.import_checkpoint(str(tmp_path / 'released.safetensors'), config, str(tmp_path / 'run'))
    arguments = convert.export_checkpoint(str(tmp_path / 'run'), config, str(tmp_path / 'back.safetensors'))
    assert arguments['in_channels'] == 5
    back = files.read_state_dict(tmp_path / 'back.safetensors')
    assert back.keys() == state_dict.keys()
    for name, array in state_dict.items():
        np.testing.assert_array_equal(back[name], array)
