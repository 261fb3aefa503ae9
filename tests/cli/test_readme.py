"""The commands that the README shows for several kinds of machines, as they are written there."""

from tests.cli.readme import blocks, run_block
from tests.cli.running import ran


def test_a_gpu_box(tmp_path, environment):
    (block,) = blocks("A GPU box")
    out = ran(run_block(block, tmp_path, environment))
    assert "4 of 4 trials done" in out


def test_an_air_gapped_site(tmp_path, environment):
    outs = [ran(run_block(block, tmp_path, environment)) for block in blocks("An air-gapped site")]
    carried, site, out = outs
    assert "4 trials to run written to carried/plan." in carried
    assert site.count("2 of 2 trials done") == 2
    assert "4 of 4 trials of the plan are stored in home.db." in out
    assert "slice2d-imagenet" in out
