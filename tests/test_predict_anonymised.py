"""--anonymise: nothing that predict writes or says names a file, a folder or a patient."""

import numpy as np
import tiny
from PIL import Image
from test_predict import write_rated


def write_inputs(root):
    """A rated image, a truncated one, and an image with one of another name beside it, all named after a patient."""
    write_rated(root / 'Jane_Doe')
    (root / 'Jane_Doe' / 'mask_ann.png').rename(root / 'Jane_Doe' / 'mask_Jane.png')
    noise = np.random.default_rng(0).integers(0, 256, (30, 40), np.uint8)
    Image.fromarray(noise).save(root / 'Jane_Doe_1961.png')
    (root / 'Jane_Doe_cut.png').write_bytes((root / 'Jane_Doe_1961.png').read_bytes()[:300])
    (root / 'Jane_Doe_letter.txt').write_text('To Jane Doe\n')


def test_nothing_written_or_said_names_the_patient(weights, bright, tmp_path, capfd):
    write_inputs(tmp_path / 'in')
    assert tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'out', '--anonymise') == 2
    told = capfd.readouterr()
    for text in (told.out, told.err):
        assert 'Jane' not in text and 'Doe' not in text and '1961' not in text
    assert 'truncated' in told.err and '2 of 3 cases done' in told.out
    written = [path for path in (tmp_path / 'out').rglob('*') if path.is_file()]
    assert len([path for path in written if path.name == 'summary.json']) == 2
    for path in written:
        content = path.read_bytes()
        assert b'Jane' not in content and b'Doe' not in content and b'1961' not in content, path
        assert 'Jane' not in str(path.relative_to(tmp_path / 'out'))
    folders = {path.parent.name for path in written if path.name == 'summary.json'}
    assert all(name.startswith('case_') and len(name) == 17 for name in folders)


def test_a_case_keeps_its_name_whatever_its_file_is_called_and_is_made_once(weights, bright, tmp_path):
    write_inputs(tmp_path / 'in')
    run = lambda: tiny.run_predict(weights, tmp_path / 'in', tmp_path / 'out', '--anonymise')
    cases = lambda: sorted(path.name for path in (tmp_path / 'out').glob('case_*'))
    run()
    before, drawn = cases(), len(bright)
    (tmp_path / 'in' / 'Jane_Doe_1961.png').rename(tmp_path / 'in' / 'John.png')
    run()
    assert cases() == before and len(bright) == drawn
