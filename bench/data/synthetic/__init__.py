"""The embedded synthetic cohorts: brains made from the MNI152 maps that nilearn ships.

Each subject is the MNI152 T1 template, changed in this order:

1. **head**: a global scale by sex and person, and a smooth random warp;
2. **ventricles**: the lateral ventricles widen by a radial displacement until they hold the wanted
   multiple of the template's volume, pressing the tissue around them outwards;
3. **tissue loss**: of the grey matter in a voxel a fraction is replaced by cerebrospinal fluid, as
   a voxel larger than the cortex sees its thinning (cortex, temporal cortex, hippocampi);
4. **scanner**: contrast, bias field and noise by site. There is no skull: outside the brain is 0.

**Effects.** What changes, and where a figure is quoted its size, is published; none was tuned:

=============================  ===============================================================
cortex, age                    -0.35 % thickness a year (Storsve et al. 2014, J Neurosci 34:8488)
hippocampus, age               -0.85 % volume a year (Fraser et al. 2015, NeuroImage 112:364)
hippocampus, AD                -24 % volume (Shi et al. 2009, Hippocampus 19:1055: 24.2 left, 23.1
                               right; effect size 1.6, hence a spread of 15 % between people)
ventricles, age                +2.5 % volume a year. That they expand every year in healthy
                               60-91-year-olds: Fjell et al. 2009, J Neurosci 29:15223; the figure
                               is a round one of ours
ventricles, AD                 +35 % volume. Larger in AD at equal age: Apostolova et al. 2012,
                               Alzheimer Dis Assoc Disord 26:17; the figure is a round one of ours
temporal cortex, AD            -10 % thickness. Where AD thins the cortex: Dickerson et al. 2009,
                               Cereb Cortex 19:497; the figure is a round one of ours
brain volume, sex              men larger, taken as 11 %. That they are, on average: Ruigrok et al.
                               2014, Neurosci Biobehav Rev 39:34
=============================  ===============================================================

**Calibration.** One factor, `VARIABILITY`, multiplies every difference between people of the same
age, sex and diagnosis. It was set once, before any network was run, by a linear model on voxels
(``tests/calibrate_synthetic.py``: 4 mm, 96 subjects for training, 32 for testing, 5 splits of each
of the cohort seeds 101-106, which are never shipped). Mean test AUC for AD at 0.3, 0.4, 0.55 and
0.6: .94, .90, .82 and .80, the middle of the wanted .75-.85. At the chosen 0.6 single seeds give
.69 to .85, the null twin .51 (.41 to .55); the MAE for age is 6.0 years, against 8.6 when the mean
is predicted. The spreads it multiplies are, but for that of the hippocampi, round ones of ours.

**The null twin.** The labels of ``synthetic-null`` are drawn as those of ``synthetic-ad``; its
images are made from age, sex and diagnosis drawn a second time. Nothing links the two.
"""

from bench.data.synthetic.files import materialise, write_cohort
from bench.data.synthetic.people import COHORTS, Spec

__all__ = ["COHORTS", "Spec", "materialise", "write_cohort"]
