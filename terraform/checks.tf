# Warnings: each is about something that a plan accepts and a person should know.

check "image" {
  assert {
    condition     = local.lambda == 0 || local.image_in_ecr || var.image == "docker-hub-url"
    error_message = "image = \"${var.image}\" lies outside of ECR, where Lambda cannot take it. The zip is used: ${local.lambda_zip}."
  }

  assert {
    condition     = local.lambda == 0 || !local.image_in_ecr || !can(regex("cloudtrails?-integration([:@]|$)", var.image))
    error_message = "image = \"${var.image}\" looks like the first integration's, which cannot work with these settings. Push the relay's image, or leave image out and use the zip."
  }

  assert {
    condition     = local.lambda == 0 || local.image_in_ecr || fileexists(local.lambda_zip)
    error_message = "${local.lambda_zip} does not exist. Build it before apply, as README.md says, or set lambda_zip to a release's zip."
  }
}

check "channel" {
  assert {
    condition     = coalesce(var.channel_arn, local.given_channel) == coalesce(local.env_channel, local.given_channel)
    error_message = "lambda_env.CHANNEL_ARN and channel_arn differ. channel_arn is used, for the permission and for the relay."
  }

  assert {
    condition     = !local.cloudtrail || var.create_lake || local.given_channel == "none" || strcontains(local.given_channel, ":${var.aws_region}:")
    error_message = "The channel lies in another Region than aws_region. The relay puts to the Region it runs in."
  }
}

check "audit_log_group" {
  assert {
    condition     = local.audit_log_group == 0 || var.audit_retention_days == 0 || var.audit_retention_days >= 365
    error_message = "audit_retention_days is ${var.audit_retention_days}: an auditor asks for a year at least."
  }

  assert {
    condition     = local.audit_log_group == 0 || var.audit_deletion_protection
    error_message = "audit_deletion_protection is off: whoever may delete log groups can delete the audit log."
  }
}

check "token" {
  assert {
    condition     = !nonsensitive(var.lambda_env.KONG_SUPERADMIN) || local.has_token_secret
    error_message = "lambda_env.KONG_SUPERADMIN is true, and there is no token: set lambda_env.KONG_ADMIN_TOKEN or kong_admin_token_secret_arn."
  }

  assert {
    condition     = var.kong_admin_token_secret_arn == null || !local.has_token
    error_message = "kong_admin_token_secret_arn is used; take the token out of lambda_env, so that Terraform does not see it."
  }
}
