"""One clear message for every error, in terms of the command that the user typed."""

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from dfkd.config.arguments import AMBIGUOUS, ambiguous_message, unreadable_message
from dfkd.config.build import nearest
from dfkd.config.options import option_names
from dfkd.config.paths import CONF
from dfkd.errors import ConfigError

# {prefix of the files of a plugin's options: (beginning of the message, pip extra that installs the plugin)}
EXTRAS = {
    "hydra/launcher/submitit_": ("hydra/launcher=slurm and slurm_local need", "slurm"),
    "hydra/sweeper/sampler/": ("hydra/sweeper=optuna needs", "optuna"),
}


def explain(error: Exception) -> str:
    """Return one clear message for an error."""
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, MissingConfigException):
        # Hydra lists the options in the folder of the missing file, those of the group that it belongs to, or none.
        file = error.missing_cfg_file or ""
        (top, _, below), (group, _, option) = file.partition("/"), file.rpartition("/")
        if not error.options or (option_names(top, [CONF]) and not option_names(group, [CONF])):
            group, option = top, below
        listed = error.options if f"options in '{group}'" in str(error) else ()
        options = sorted({*listed, *option_names(group, [CONF])})
        for beginning, (who, extra) in EXTRAS.items():
            if file.startswith(beginning) and not error.options:
                return f"{who} an extra: pip install 'dfkd[{extra}]'"
        if options:
            hint = nearest(option, options)  # the nearest one; without one, all
            every = f"\n(options: {', '.join(options)})" if "did you mean" in hint else ""
            return f"{group} has no option '{option}'{hint}{every}"
    if isinstance(error, OverrideParseException):
        return unreadable_message(error.override, error.message)
    if match := AMBIGUOUS.search(str(error)):
        return ambiguous_message(match[1])
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain_override(error)
    if "Config group override must be" in str(error):  # Hydra does not name the group
        return "a group takes the name of one of its options, not null or a number; `dfkd --help` lists them"
    if "No space left on device" in str(error):
        return "the disk is full; what is finished is kept: free some space and repeat the command, or set outputs=DIR"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be used ({error.strerror}); set outputs=DIR if it is below the outputs folder"
    return f"{type(error).__name__}: {error}\n(HYDRA_FULL_ERROR=1 shows the traceback)"


def explain_override(error: Exception) -> str:
    """Return the message for a Hydra or OmegaConf error about an override; for an unknown key it names the nearest."""
    cause = error.__cause__
    key, parent = getattr(cause, "full_key", None), getattr(cause, "parent_node", None)
    lines = str(error).splitlines()
    if any("full_key: hydra.sweeper." in line for line in lines):
        return "the axes of this experiment or ablation are for hydra/sweeper=cells (the default) or optuna: choose one"
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    if key and parent is not None and hasattr(parent, "keys"):
        last = str(key).rpartition(".")[2]
        return f"there is no '{key}'{nearest(last, [str(k) for k in parent])}"
    hints = [line for line in lines[1:] if line.startswith("Did you mean")]  # `network` for `network@teacher.network`
    return " ".join([text, *hints])
