"""The synthetic cohorts: brain images generated from the MNI152 maps distributed with nilearn.

The image of each subject is the MNI152 T1 template, modified in this order:

1. **head**: a global scale by sex and subject, and a smooth random warp;
2. **ventricles**: the lateral ventricles are widened by a radial displacement until they reach a
   given multiple of the template's volume, pushing the surrounding tissue outwards;
3. **tissue loss**: a fraction of the grey matter in a voxel is replaced by cerebrospinal fluid,
   which is how cortical thinning appears in voxels larger than the cortex (cortex, temporal cortex,
   hippocampi);
4. **scanner**: contrast, bias field and noise by site. There is no skull; voxels outside the brain
   are 0.

**Effects.** The effects, and the quoted effect sizes, are published; none was tuned:

=============================  ===============================================================
cortex, age                    -0.35 % thickness a year (Storsve et al. 2014, J Neurosci 34:8488)
hippocampus, age               -0.85 % volume a year (Fraser et al. 2015, NeuroImage 112:364)
hippocampus, AD                -24 % volume (Shi et al. 2009, Hippocampus 19:1055: 24.2 left, 23.1
                               right; effect size 1.6, hence a spread of 15 % between people)
ventricles, age                +2.5 % volume a year, our assumption. Annual expansion in healthy
                               60-91-year-olds: Fjell et al. 2009, J Neurosci 29:15223
ventricles, AD                 +35 % volume, our assumption. Larger in AD at equal age: Apostolova
                               et al. 2012, Alzheimer Dis Assoc Disord 26:17
temporal cortex, AD            -10 % thickness, our assumption. Regions thinned in AD: Dickerson et
                               al. 2009, Cereb Cortex 19:497
brain volume, sex              11 % larger in men, our assumption. Larger on average: Ruigrok et al.
                               2014, Neurosci Biobehav Rev 39:34
=============================  ===============================================================

**Calibration.** A common factor, `VARIABILITY`, scales all differences between subjects of the same
age, sex and diagnosis. It was set once, before any network was trained, with a linear model on
voxels (``tests/calibrate_synthetic.py``: 4 mm, 96 training and 32 test subjects, 5 splits of each
of the cohort seeds 101-106, which are not used otherwise). The mean test AUC for AD with factors of
0.3, 0.4, 0.55 and 0.6 was .94, .90, .82 and .80; the target was .75-.85. With the chosen 0.6,
single seeds give .69 to .85, and the null cohort .51 (.41 to .55); the MAE for age is 6.0 years,
compared with 8.6 for the mean. The standard deviations that it scales are our assumptions, except
that of the hippocampi.

**The null cohort.** The labels of ``synthetic-null`` are drawn as in ``synthetic-ad``, but its
images are generated from age, sex and diagnosis drawn again, independently of the labels.
"""

from bench.data.synthetic.files import materialise, write_cohort
from bench.data.synthetic.people import COHORTS, Spec

__all__ = ["COHORTS", "Spec", "materialise", "write_cohort"]
