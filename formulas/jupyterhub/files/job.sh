#!/bin/bash -l
#SBATCH --comment="JupyterHub{{server}}"
#SBATCH --account={{account}}
#SBATCH --partition={{partition}}
{% if qos %}#SBATCH --qos={{qos}}
{% endif %}#SBATCH --time={{minutes}}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={{cpus}}
#SBATCH --mem={{memory}}M
{% if gpus %}#SBATCH --gpus={{gpus}}
{% endif %}#SBATCH --no-requeue
#SBATCH --chdir={{homedir}}
#SBATCH --output={{homedir}}/.jupyterhub{{server}}.log
#SBATCH --open-mode=truncate
unset XDG_RUNTIME_DIR
exec {{cmd}}
