-- Wattkeeper's submit filter for a site that has no job_submit.lua of its own. One that has takes the module alone: see
-- README.md. Goes to the folder of slurm.conf, and wattkeeper.lua beside it.

local folder = debug.getinfo(1, "S").source:match("^@(.*/)") or "/etc/slurm/"
local loaded, wattkeeper = pcall(dofile, folder .. "wattkeeper.lua")
if loaded then
  -- wattkeeper.profiles = {"eco", "efficient"} -- refuse every other name, which is mostly one misspelled
  -- wattkeeper.freeze_comments = true -- nobody but admins changes the comment of a running job
else
  slurm.log_error("%s", "wattkeeper: requests are not checked at submit: " .. tostring(wattkeeper))
end

function slurm_job_submit(job_desc, part_list, submit_uid)
  if loaded and not wattkeeper.may_submit(job_desc) then return slurm.ERROR end
  return slurm.SUCCESS
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
  if loaded and not wattkeeper.may_modify(job_desc, job_rec, modify_uid) then return slurm.ESLURM_ACCESS_DENIED end
  return slurm.SUCCESS
end

return slurm.SUCCESS
