# %% [markdown]
# # Logging to MLflow
#
# `pip install 'fairneuron[mlflow]'`. One function logs an audit, a verdict, a repair or a
# comparison: settings as parameters, figures with intervals and noise floors as metrics, and
# reports as artefacts. No row of the data and no weights are logged.
#
# Where it goes says MLflow's tracking URI, here a file; a server only if you name one. MLflow
# sends usage reports of its own; `fn.log_to_mlflow` leaves them off, but whoever imports MLflow
# before must say so.

# %%
import os
import tempfile

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_LOGGING_LEVEL"] = "ERROR"  # it tells of the tables that it makes

import mlflow

import fairneuron as fn

os.chdir(tempfile.mkdtemp())  # for the store
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.set_experiment("repairs")
data = fn.load_dataset("compas", sensitive="race", include_sensitive=True)
limit = {"dp": 0.05}

# %% [markdown]
# ## A run per split
#
# What is logged goes to the active run, and without one to a new one. A prefix keeps two audits of
# one run apart; verdicts are under the name of the data that they are on.

# %%
for seed in (0, 1, 2):
    train, valid, test = data.split(seed=seed)
    net = fn.train_classifier(train, valid, hidden=(16, 16), seed=seed)  # or your own nn.Module
    with mlflow.start_run(run_name=f"split {seed}"):
        result = fn.repair(net, train, valid, limit=limit, seed=seed)
        fn.log_to_mlflow(result, data=data)
        fn.log_to_mlflow(fn.audit(net, test), prefix="before")
        fn.log_to_mlflow(fn.audit(result.model, test), prefix="after")
        run = fn.log_to_mlflow(fn.judge(net, result.model, test, limit, on="test"))

# %% [markdown]
# ## What a run has

# %%
logged = mlflow.get_run(run)
print({name: logged.data.params[name] for name in ("data", "recipe", "limit_dp", "seed")})
for name in ("test/dp_before", "test/dp_after", "test/dp_gain_low", "test/dp_gain_high"):
    print(name, round(logged.data.metrics[name], 3))
print("test/dp_noise_floor", round(logged.data.metrics["test/dp_noise_floor"], 3))
print(logged.data.tags["test/sentence"])

# %%
client = mlflow.MlflowClient()
for folder in (None, "before", "after", "test"):
    print(folder or "run", [file.path for file in client.list_artifacts(run, folder)])

# %% [markdown]
# ## All runs side by side

# %%
columns = {
    "params.seed": "seed",
    "metrics.test/dp_before": "DP difference before",
    "metrics.test/dp_after": "after",
    "metrics.test/accuracy_before": "accuracy before",
    "metrics.test/accuracy_after": "after ",
    "tags.test/outcome": "outcome on test data",
}
runs = mlflow.search_runs(order_by=["params.seed"])
runs[list(columns)].rename(columns=columns).round(3)

# %% [markdown]
# One split says little: look at how the figures differ between them. A metric that is undefined is
# not there; the tag `….undefined` says why. To see the runs in a browser, install the whole
# `mlflow` and run `mlflow ui --backend-store-uri sqlite:///mlflow.db` beside your store.
