from __future__ import annotations

import inspect
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon  # noqa: F401
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from scdeconv import metrics
