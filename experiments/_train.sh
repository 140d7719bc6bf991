# What the experiments share: sourced, not run.

# FOLDER CONFIG [key=value ...]: train a config into a run directory. A run that is done is not trained again, and one
# that was stopped goes on.
train_or_resume() {
  local folder=$1
  shift
  if [[ -e $folder/config.yaml ]]; then
    metarun train --resume "$folder"
  else
    metarun train "$@" --run-dir "$folder"
  fi
}
