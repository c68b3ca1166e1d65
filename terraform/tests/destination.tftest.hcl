# Where events go: it follows from what is set.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "a_channel_means_the_lake" {
  command = plan

  assert {
    condition     = aws_lambda_function.relay[0].environment[0].variables["RELAY_DESTINATION"] == "cloudtrail" && length(aws_cloudformation_stack.audit) == 0
    error_message = "as it did before CloudWatch was the first choice"
  }
}

run "the_channel_of_lambda_env_too" {
  command = plan

  variables {
    channel_arn = null
    lambda_env = {
      KONG_ADMIN_API   = "https://kong.internal:8444"
      KONG_SUPERADMIN  = true
      KONG_ADMIN_TOKEN = "the-token"
      CHANNEL_ARN      = "arn:aws:cloudtrail:us-east-1:123456789012:channel/c"
    }
  }

  assert {
    condition     = aws_lambda_function.relay[0].environment[0].variables["RELAY_DESTINATION"] == "cloudtrail" && aws_lambda_function.relay[0].environment[0].variables["CHANNEL_ARN"] == "arn:aws:cloudtrail:us-east-1:123456789012:channel/c"
    error_message = "which the first integration had as well"
  }
}

run "nothing_means_cloudwatch" {
  variables {
    channel_arn = null
  }

  assert {
    condition     = jsondecode(aws_cloudformation_stack.audit[0].template_body).Resources.Group.Properties.LogGroupName == "/kong/audit/relay" && output.destination == "/kong/audit/relay"
    error_message = "a log group"
  }

  assert {
    condition     = aws_lambda_function.relay[0].environment[0].variables["RELAY_DESTINATION"] == "cloudwatch" && aws_lambda_function.relay[0].environment[0].variables["RELAY_LOG_GROUP"] == "arn:aws:logs:us-east-1:123456789012:log-group:/kong/audit/relay" && !contains(keys(aws_lambda_function.relay[0].environment[0].variables), "CHANNEL_ARN")
    error_message = "and the relay's settings for it"
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.relay.policy).Statement[0] == {
      Sid      = "Deliver"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = ["arn:aws:logs:us-east-1:123456789012:log-group:/kong/audit/relay:*"]
    } && !strcontains(aws_iam_role_policy.relay.policy, "cloudtrail-data")
    error_message = "and the right to put events into it, and none to CloudTrail"
  }
}

run "an_audit_log" {
  variables {
    channel_arn = null
  }

  assert {
    condition     = alltrue([for resource in jsondecode(aws_cloudformation_stack.audit[0].template_body).Resources : resource.DeletionPolicy == "Retain" && resource.UpdateReplacePolicy == "Retain"]) && jsondecode(aws_cloudformation_stack.audit[0].template_body).Resources.Group.Properties.DeletionProtectionEnabled
    error_message = "that outlives the relay, and that nobody deletes by mistake"
  }

  assert {
    condition     = jsondecode(aws_cloudformation_stack.audit[0].template_body).Resources.Group.Properties.RetentionInDays >= 400
    error_message = "for more than a year"
  }

  assert {
    condition     = { for tag in jsondecode(aws_cloudformation_stack.audit[0].template_body).Resources.Group.Properties.Tags : tag.Key => tag.Value } == { "cw:datasource:name" = "kong_gateway", "cw:datasource:type" = "audit", project = "kong-cloudtrail-integrations" }
    error_message = "a data source"
  }

  assert {
    condition     = jsondecode(aws_cloudformation_stack.audit[0].template_body).Resources.Group.Properties.FieldIndexPolicies == [{ Fields = ["userIdentity.principalId", "eventName", "additionalEventData.workspace", "UID"] }] && jsondecode(aws_cloudformation_stack.audit[0].template_body).Resources.Group.Properties.LogGroupClass == "STANDARD"
    error_message = "with indexes, in the class that has them"
  }

  assert {
    condition     = !contains(keys(jsondecode(aws_cloudformation_stack.audit[0].template_body).Resources.Group.Properties), "KmsKeyId") && length(aws_cloudformation_stack.s3_tables) == 0
    error_message = "AWS's own key, and one copy, unless asked for"
  }
}

run "ocsf_has_other_fields" {
  command = plan

  variables {
    channel_arn = null
    relay_env   = { RELAY_EVENT_FORMAT = "ocsf" }
  }

  assert {
    condition     = jsondecode(aws_cloudformation_stack.audit[0].template_body).Resources.Group.Properties.FieldIndexPolicies == [{ Fields = ["actor.user.uid", "api.operation", "metadata.tenant_uid", "metadata.uid"] }]
    error_message = "the same four by OCSF's names"
  }
}

run "fields_and_retention_of_choice" {
  command = plan

  variables {
    channel_arn          = null
    audit_index_fields   = []
    audit_retention_days = 0
  }

  assert {
    condition     = length(setintersection(keys(jsondecode(aws_cloudformation_stack.audit[0].template_body).Resources.Group.Properties), ["FieldIndexPolicies", "RetentionInDays"])) == 0
    error_message = "no indexes, no end"
  }
}

run "a_key_of_its_own" {
  command = plan

  variables {
    channel_arn          = null
    audit_create_kms_key = true
  }

  assert {
    condition     = jsondecode(aws_cloudformation_stack.audit[0].template_body).Resources.Group.Properties.KmsKeyId == { "Fn::GetAtt" = ["Key", "Arn"] } && jsondecode(aws_cloudformation_stack.audit[0].template_body).Resources.Key.DeletionPolicy == "Retain"
    error_message = "which stays with the group: without it nobody could read the group"
  }

  assert {
    condition     = jsondecode(aws_cloudformation_stack.audit[0].template_body).Resources.Key.Properties.KeyPolicy.Statement[1].Condition.ArnEquals["kms:EncryptionContext:aws:logs:arn"] == "arn:aws:logs:us-east-1:123456789012:log-group:/kong/audit/relay"
    error_message = "CloudWatch Logs may use it for this group"
  }
}

run "a_key_that_is_given" {
  command = plan

  variables {
    channel_arn              = null
    kms_key_arn              = "arn:aws:kms:us-east-1:123456789012:key/k"
    cache_generation         = 2
    audit_s3_tables_role_arn = "arn:aws:iam::123456789012:role/tables"
  }

  assert {
    condition     = jsondecode(aws_cloudformation_stack.audit[0].template_body).Resources.Group.Properties.KmsKeyId == "arn:aws:kms:us-east-1:123456789012:key/k" && jsondecode(aws_cloudformation_stack.s3_tables[0].template_body).Resources.Integration.Properties.Encryption == { SseAlgorithm = "aws:kms", KmsKeyArn = "arn:aws:kms:us-east-1:123456789012:key/k" }
    error_message = "used for the group and its tables"
  }

  assert {
    condition     = jsondecode(aws_cloudformation_stack.s3_tables[0].template_body).Resources.Integration.Properties.LogSources == [{ Name = "kong_gateway", Type = "audit" }]
    error_message = "tables of this data source"
  }
}

run "a_group_that_exists" {
  variables {
    channel_arn            = null
    audit_log_group_name   = "/audit/kong"
    audit_log_group_exists = true
  }

  assert {
    condition     = length(aws_cloudformation_stack.audit) == 0 && aws_lambda_function.relay[0].environment[0].variables["RELAY_LOG_GROUP"] == "arn:aws:logs:us-east-1:123456789012:log-group:/audit/kong"
    error_message = "used, and not made again"
  }
}

run "an_empty_channel_refused" {
  command         = plan
  expect_failures = [var.channel_arn]

  variables {
    channel_arn = ""
  }
}

run "an_empty_channel_for_cloudwatch" {
  command = plan

  variables {
    channel_arn = ""
    destination = "cloudwatch"
  }

  assert {
    condition     = length(aws_cloudformation_stack.audit) == 1
    error_message = "which has none"
  }
}

run "the_lake_without_a_channel_refused" {
  command         = plan
  expect_failures = [var.channel_arn]

  variables {
    channel_arn = null
    destination = "cloudtrail"
  }
}

run "two_destinations_refused" {
  command         = plan
  expect_failures = [var.channel_arn]

  variables {
    audit_log_group_name = "/audit/kong"
  }
}

run "a_retention_that_cloudwatch_does_not_have_refused" {
  command         = plan
  expect_failures = [var.audit_retention_days]

  variables {
    channel_arn          = null
    audit_retention_days = 500
  }
}

run "more_than_twenty_fields_refused" {
  command         = plan
  expect_failures = [var.audit_index_fields]

  variables {
    channel_arn        = null
    audit_index_fields = [for i in range(21) : "field${i}"]
  }
}

run "a_short_retention_is_warned_of" {
  command         = plan
  expect_failures = [check.audit_log_group]

  variables {
    channel_arn          = null
    audit_retention_days = 90
  }
}

run "no_deletion_protection_is_warned_of" {
  command         = plan
  expect_failures = [check.audit_log_group]

  variables {
    channel_arn               = null
    audit_deletion_protection = false
  }
}
